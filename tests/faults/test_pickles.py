"""Small checkpoints with a right seal that would take endless time or memory to read."""

from __future__ import annotations

import io
import pickle
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stopped import interrupted

from cifar_cli.errors import CheckpointError
from cifar_cli.training.checkpoint import load_checkpoint
from cifar_cli.training.sealed import seal

SECONDS = 10.0


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the checkpoint of a run holds that was stopped in its second epoch."""
    run = interrupted(tmp_path_factory.mktemp("pickles") / "a")
    return torch.load(run.last, weights_only=True)


def saved(document: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(document, buffer)
    return buffer.getvalue()


def with_pickle(code: bytes, kind: int = zipfile.ZIP_STORED) -> bytes:
    """A file of `torch.save` with another pickle."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved({"a": torch.zeros(1)}))) as old,
        zipfile.ZipFile(buffer, "w", kind) as new,
    ):
        for part in old.infolist():
            is_pickle = part.filename.endswith("data.pkl")
            new.writestr(part.filename, code if is_pickle else old.read(part))
    return buffer.getvalue()


def call(name: bytes, arguments: bytes) -> bytes:
    return b"\x80\x02c" + name + b"\n(" + arguments + b"tR."


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    encoded = value.to_bytes(10, "little")
    return b"\x8a" + bytes([len(encoded)]) + encoded


def nested(depth: int, width: int, inner: Any) -> Any:
    """Lists of one list each many times over."""
    for _ in range(depth):
        inner = [inner] * width
    return inner


def refused(path: Path, file: bytes) -> str:
    path.write_bytes(seal(file))
    started = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert time.monotonic() - started < SECONDS
    return str(caught.value)


@pytest.mark.fault(92)
def test_values_that_are_held_many_times_over_are_refused_at_once(
    document: Any, tmp_path: Path
) -> None:
    path = tmp_path / "last.pt"
    one = torch.zeros(1)
    averages = {str(n): one for n in range(1000)}
    endless: list[Any] = []
    endless.append(endless)
    training = document["training"]
    cases = {
        "settings": {**document, "config": {"x": nested(4, 500, 0)}},
        "class names": {**document, "class_names": nested(4, 500, "a")},
        "history": {**document, "training": {**training, "history": nested(4, 500, 0)}},
        "averages": {
            **document,
            "training": {**training, "optimizer": {"state": dict.fromkeys(range(1000), averages)}},
        },
        "entries of other versions": {**document, "x": nested(4, 500, 0)},
        "endless": {**document, "config": {"x": endless}},
    }
    for name, content in cases.items():
        assert "is not a checkpoint" in refused(path, saved(content)), name


@pytest.mark.fault(92)
def test_a_pickle_may_call_only_what_this_program_saves(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    ideographs = text("".join(chr(0x4E00 + n * 7919 % 20000) for n in range(60000)))
    cases = {
        "memory": call(b"builtins\nbytearray", number(3 * 10**9)),
        "memory of Python 2": call(b"__builtin__\nbytearray", number(3 * 10**9)),
        "punycode": call(b"_codecs\nencode", ideographs + text("punycode")),
        "idna": call(b"_codecs\nencode", ideographs + text("idna")),
        "a dictionary of pairs": call(b"collections\nOrderedDict", b"]"),
        "an empty tensor": call(b"torch._utils\n_rebuild_meta_tensor_no_storage", b"NNNN"),
        "another step": b"\x80\x02\x8f.",
        "a number of text": b"\x80\x02I" + b"9" * 5000 + b"\n.",
        "cut short": b"\x80\x02(X\xff\xff",
        "of nothing": b"",
        "an empty stack": b"\x80\x02s.",
    }
    for name, code in cases.items():
        assert "is not a checkpoint" in refused(path, with_pickle(code)), name
    assert "is not a checkpoint" in refused(
        path, with_pickle(pickle.dumps({"a": bytes(10**7)}, 2), zipfile.ZIP_DEFLATED)
    )


@pytest.mark.fault(92)
def test_keys_whose_hashes_collide_or_take_endless_time_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    # Each of 64 tuples holds the one before it twice.
    pair = b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(64))
    cases = {
        "a tuple": b"\x80\x02})" + pair + b"Ns.",
        "of one hash": b"\x80\x02}("
        + b"".join(number(n * (2**61 - 1)) + b"N" for n in range(50_000))
        + b"u.",
    }
    for name, code in cases.items():
        assert "is not a checkpoint" in refused(path, with_pickle(code)), name


@pytest.mark.fault(92)
def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    code = pickle_of(saved({"a": torch.zeros(1)}))
    # Its size, one number, becomes 10,000,000: torch makes its storage grow to that.
    size = code.rindex(b"K\x00K\x01\x85")
    larger = code[: size + 2] + b"J" + struct.pack("<i", 10**7) + code[size + 4 :]
    assert "is not a checkpoint" in refused(tmp_path / "last.pt", with_pickle(larger))


def pickle_of(file: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        return archive.read("archive/data.pkl")


@pytest.mark.fault(92)
def test_what_python_and_torch_would_read_differently_is_refused(
    document: Any, tmp_path: Path
) -> None:
    path, file = tmp_path / "last.pt", saved(document)
    old = io.BytesIO()
    torch.save(document, old, _use_new_zipfile_serialization=False)
    for shifted in (b"x" + file, old.getvalue() + file):
        assert "is not a checkpoint" in refused(path, shifted)


@pytest.mark.fault(92)
@pytest.mark.parametrize("wrap", [dict, OrderedDict], ids=lambda wrap: str(wrap.__name__))
def test_weights_that_somebody_saved_again_are_read(
    document: Any, tmp_path: Path, wrap: Callable[[Any], Any]
) -> None:
    path = tmp_path / "last.pt"
    weights = {
        name: torch.nn.Parameter(tensor.half()) if tensor.is_floating_point() else tensor
        for name, tensor in document["weights"].items()
    }
    path.write_bytes(saved({**document, "weights": wrap(weights)}))
    assert load_checkpoint(path).weights.keys() == weights.keys()
