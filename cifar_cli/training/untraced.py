"""torch's optimisers without torch.compile's tracer, whose import takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def untraced(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of an optimiser without its decorator for torch.compile.

    The decorator keeps the tracer from following the method. At the first call it imports the
    tracer for that, which would take two seconds of every training.
    """
    plain: Callable[..., Any] = getattr(method, "__wrapped__", method)
    return plain
