# Two commands on a fresh machine: `make demo` and `make test`. Both need only Python 3.11 or newer, and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Another Python, or a change of what is to be installed, makes the environment anew.
VERSION := $(shell $(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null)
STAMP := $(VENV)/.installed-$(VERSION)

.PHONY: python setup demo test quick lint types drift unit docs bench fuzz soak reliability clean

setup: $(STAMP)

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo 'Python 3.11 or newer is needed, and $(PYTHON) is $(or $(VERSION),not there). Install one (Debian, Ubuntu: apt install python3 python3-venv) and name it: make PYTHON=python3.13' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo '$(PYTHON) cannot make virtual environments. Install its venv (Debian, Ubuntu: apt install $(notdir $(PYTHON))-venv).' >&2; exit 1; }

$(STAMP): pyproject.toml constraints.txt | python
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --prefer-binary -e '.[dev]' -c constraints.txt
	touch $@

demo: setup
	$(BIN)/cifar-resnet train --recipe demo --data shapes --name demo
	$(BIN)/cifar-resnet evaluate
	$(BIN)/cifar-resnet plot
	$(BIN)/cifar-resnet misclassified --n 10

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

# Two processes of one thread each: the tests are many and small.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

unit: setup
	$(PYTEST)

drift: setup
	$(BIN)/python doc/generate_commands.py --check
	$(BIN)/python doc/generate_settings.py --check

test: lint types drift unit

# What may differ from one Python to the next: the installation, a run, and how processes start.
quick: setup
	rm -rf build/quick-$(VERSION)
	$(BIN)/cifar-resnet train --recipe demo --data shapes --epochs 1 --run-dir build/quick-$(VERSION)
	$(PYTEST) -m start_method

docs: setup
	$(BIN)/python doc/generate_commands.py
	$(BIN)/python doc/generate_settings.py

bench: setup
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/augmentation.py
	$(BIN)/python benchmarks/train_throughput.py
	$(BIN)/python benchmarks/convolutions.py
	$(BIN)/python benchmarks/arithmetic.py
	$(BIN)/python benchmarks/peak_memory.py
	$(BIN)/python benchmarks/checkpoint.py
	$(BIN)/python benchmarks/start_methods.py

fuzz: setup
	$(BIN)/python tests/fuzz.py

soak: setup
	$(BIN)/python tests/soak.py

reliability: setup
	mkdir -p build
	$(PYTEST) -m fault --fault-report=build/faults.json
	$(BIN)/python tests/soak.py --out build/soak.json
	$(BIN)/python tests/fuzz.py --out build/fuzz.json
	$(BIN)/python doc/generate_reliability.py --faults build/faults.json --soak build/soak.json --fuzz build/fuzz.json

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
