"""Train a custom ResNet on CIFAR-10 and see what it learned.

The public API, four names, each imported only when first used so that ``import cifar_cli``
stays instant::

    from cifar_cli import load_config, train, evaluate, load_model

    config = load_config("demo", data="shapes")
    result = train(config, run_dir="runs/first")
    report = evaluate("runs/first")
    model = load_model("runs/first")
    print(model.predict("photo.jpg").class_name)
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # that of typing takes longer to import than all of this

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate", "load_config", "load_model", "train"]

_HOMES = {
    "load_config": "cifar_cli.training.choosing",
    "train": "cifar_cli.training.run",
    "evaluate": "cifar_cli.analysis.evaluate",
    "load_model": "cifar_cli.analysis.trained",
}

# `python -m` looks for modules in the working folder first, whatever lies there.
_checkout = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120 - pathlib takes long to import
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and sys.path[0] != _checkout:
    del sys.path[0]

# Read by torch when it comes up: large pages for large tensors, where the system has them (Linux).
# Steps whose activations are made anew each time wait less for memory; see doc/log.md.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _spare_threads() -> None:
    """Have numpy's OpenBLAS start no threads if the process has limits that it might meet.

    It interrupts the whole process when it cannot start one, and nothing here needs them.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    from cifar_cli.limits import memory_limit

    if 0 <= resource.getrlimit(resource.RLIMIT_NPROC)[0] < 1000 or memory_limit():
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


_spare_threads()

if TYPE_CHECKING:
    from typing import Any

    from cifar_cli.analysis.evaluate import evaluate
    from cifar_cli.analysis.trained import load_model
    from cifar_cli.training.choosing import load_config
    from cifar_cli.training.run import train


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
