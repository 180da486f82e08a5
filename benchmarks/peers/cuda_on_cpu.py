"""Run a training script that was written for one CUDA GPU on the CPU, in fp32, unchanged.

python benchmarks/peers/cuda_on_cpu.py SCRIPT [--replace OLD NEW]... [--threads N]

Calls that move to a GPU do nothing, half precision becomes single, `torch.compile` leaves things as
they are, and CUDA events read the wall clock. Each --replace must occur in the script; it is how a
run is cut short.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LOW = (torch.float16, torch.bfloat16)


class Event:
    """What a script uses of `torch.cuda.Event`."""

    def __init__(self, **_: Any) -> None:
        self.at = 0.0

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds from this event to `end`."""
        return 1000 * (end.at - self.at)


class OnCpu(TorchFunctionMode):
    """Sends what is asked of a GPU to the CPU, and of half precision to single."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args = tuple(_moved(value) for value in args)
        kwargs = {key: _moved(value) for key, value in (kwargs or {}).items()}
        if function is Tensor.cuda:
            return args[0]
        if function in (Tensor.half, Tensor.bfloat16):  # a new tensor, as on a GPU
            return args[0].to(torch.float32, copy=True)
        return function(*args, **kwargs)


def _moved(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("cuda"):
        return "cpu"
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return torch.float32 if isinstance(value, torch.dtype) and value in LOW else value


def _compile(model: Any = None, **_: Any) -> Any:
    return model if model is not None else lambda function: function


def _loaded_on_cpu(load: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(load)
    def wrapper(file: Any, map_location: Any = None, **settings: Any) -> Any:
        return load(file, map_location="cpu", **settings)

    return wrapper


def stand_in() -> None:
    """Put the CPU in the place of the GPU, for the rest of this process."""
    torch.cuda.Event = Event  # type: ignore[assignment, misc]
    torch.cuda.synchronize = lambda *_: None
    torch.compile = _compile
    torch.load = _loaded_on_cpu(torch.load)
    nn.Module.compile = lambda self, **_: None  # type: ignore[method-assign]
    nn.Module.cuda = lambda self, *_: self  # type: ignore[method-assign]
    nn.Module.half = nn.Module.float  # type: ignore[method-assign]
    nn.Module.bfloat16 = nn.Module.float  # type: ignore[method-assign]


def edited(source: str, replacements: list[tuple[str, str]]) -> str:
    """The script with the replacements made, all at once: none is made in what another one wrote.

    Raises:
        SystemExit: One does not occur in it.
    """
    for old, _ in replacements:
        if old not in source:
            raise SystemExit(f"{old!r} does not occur in the script: it is another version.")
    news = dict(replacements)
    pattern = "|".join(map(re.escape, news))
    return re.sub(pattern, lambda found: news[found[0]], source) if news else source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("script", type=Path)
    parser.add_argument("--replace", nargs=2, action="append", default=[], metavar=("OLD", "NEW"))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    source = edited(arguments.script.read_text(encoding="utf-8"), arguments.replace)
    stand_in()
    sys.argv = [str(arguments.script)]
    program = compile(source, str(arguments.script), "exec")
    with OnCpu():
        exec(program, {"__name__": "__main__", "__file__": str(arguments.script)})


if __name__ == "__main__":
    main()
