"""The pickle in a checkpoint: looked through before it is read, and measured afterwards.

torch's restricted unpickler runs no code, but it calls more than a checkpoint needs, some of which
takes any amount of time or memory. A file of this program names only what `_GLOBALS` holds, its
keys are texts and small numbers, and it holds no list or dictionary twice.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterable

from torch import Tensor

MAX_BYTES = 128 * 2**20
MAX_STEPS = 4_000_000
"""Twice what the longest run of all takes, of 100,000 epochs."""
_ORDERED = "collections OrderedDict"
_STORAGES = (
    "Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool",
)  # fmt: skip
_GLOBALS = {
    _ORDERED,
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",  # of weights that somebody saved again
    *(f"torch {name}Storage" for name in _STORAGES),
}
# What lies on the unpickler's stack. A key's hash must be quick and without collisions, which a
# file could choose for tuples and for numbers of more than 61 bits.
_KEY, _VALUE, _EMPTY_TUPLE, _DICTIONARY_TYPE, _MARK = range(5)
_PUSHED = dict.fromkeys(("BINUNICODE", "BININT", "BININT1", "BININT2"), _KEY) | dict.fromkeys(
    ("NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT", "LONG1", "EMPTY_LIST", "EMPTY_DICT"), _VALUE
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def check_pickle(data: bytes) -> int:
    """Check that a pickle does nothing that one of this program would not; its number of steps.

    Raises:
        ValueError, LookupError, OverflowError: It does, or it is damaged.
    """
    if len(data) > MAX_BYTES:
        raise ValueError("the pickle is too long")
    stack: list[int] = []
    memo: dict[object, int] = {}
    steps = 0
    for operation, argument, _ in pickletools.genops(data):
        steps += 1
        if steps > MAX_STEPS:
            raise ValueError("the pickle has too many steps")
        name = operation.name
        if name in _PUSHED:
            stack.append(_PUSHED[name])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "EMPTY_TUPLE":
            stack.append(_EMPTY_TUPLE)
        elif name == "TUPLE":
            stack.append(_VALUE if _to_mark(stack) else _EMPTY_TUPLE)
        elif name in _TUPLES:
            _pop(stack, _TUPLES[name])
            stack.append(_VALUE)
        elif name == "APPEND":
            _pop(stack, 1)
        elif name == "APPENDS":
            _to_mark(stack)
        elif name == "SETITEM":
            _need_keys(_pop(stack, 2)[:1])
        elif name == "SETITEMS":
            _need_keys(_to_mark(stack)[::2])
        elif name == "GLOBAL":
            if argument not in _GLOBALS:
                raise ValueError(f"the pickle names {argument}")
            stack.append(_DICTIONARY_TYPE if argument == _ORDERED else _VALUE)
        elif name == "REDUCE":
            called, arguments = _pop(stack, 2)
            if called == _DICTIONARY_TYPE and arguments != _EMPTY_TUPLE:
                raise ValueError("the pickle makes a dictionary of other values")
            stack.append(_VALUE)
        elif name == "BUILD":
            _pop(stack, 1)
        elif name == "BINPERSID":
            _pop(stack, 1)
            stack.append(_VALUE)
        elif name not in ("PROTO", "STOP"):
            raise ValueError(f"the pickle has the step {name}")
    return steps


def check_size(content: object, steps: int, file_bytes: int) -> None:
    """Check that what was read is no larger than what it was read from.

    Lists and dictionaries that are held many times over, each a single step of the pickle, would
    else take endless time to go through.

    Args:
        content: What was read.
        steps: Of its pickle.
        file_bytes: All that the file had for tensors.

    Raises:
        ValueError: It is larger.
    """
    waiting, storages = [content], {}
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            steps -= len(value)
            inner: Iterable[object] = value.values()
        elif isinstance(value, list | tuple):
            inner = value
        else:
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
            continue
        steps -= len(value)
        if steps < 0:
            raise ValueError("it holds a list or dictionary many times over")
        waiting.extend(inner)
    # A tensor whose shape is larger than its storage makes that grow.
    if sum(storages.values()) > file_bytes:
        raise ValueError("its tensors are larger than the file")


def _pop(stack: list[int], count: int) -> list[int]:
    if len(stack) < count or _MARK in stack[-count:]:
        raise ValueError("the pickle takes more than there is")
    popped = stack[-count:]
    del stack[-count:]
    return popped


def _to_mark(stack: list[int]) -> list[int]:
    """All above the last mark, removed with it."""
    popped = []
    while (top := stack.pop()) != _MARK:
        popped.append(top)
    return popped[::-1]


def _need_keys(keys: list[int]) -> None:
    if any(key != _KEY for key in keys):
        raise ValueError("the pickle has a key that is neither a text nor a small number")
