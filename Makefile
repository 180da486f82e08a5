# Two commands on a fresh machine: `make demo` and `make test`. Both need only Python 3.11 to 3.13, and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test lint types drift unit docs bench fuzz soak reliability clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
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
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

unit: setup
	$(PYTEST)

drift: setup
	$(BIN)/python doc/generate_commands.py --check

test: lint types drift unit

docs: setup
	$(BIN)/python doc/generate_commands.py

bench: setup
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/augmentation.py
	$(BIN)/python benchmarks/train_throughput.py
	$(BIN)/python benchmarks/convolutions.py
	$(BIN)/python benchmarks/arithmetic.py
	$(BIN)/python benchmarks/peak_memory.py
	$(BIN)/python benchmarks/checkpoint.py

fuzz: setup
	$(BIN)/python benchmarks/fuzz.py

soak: setup
	$(BIN)/python tests/soak.py

reliability: setup
	mkdir -p build
	$(PYTEST) -m fault --fault-report=build/faults.json
	$(BIN)/python tests/soak.py --out build/soak.json
	$(BIN)/python benchmarks/fuzz.py --out build/fuzz.json
	$(BIN)/python doc/generate_reliability.py --faults build/faults.json --soak build/soak.json --fuzz build/fuzz.json

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
