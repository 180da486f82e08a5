"""Checkpoints with a right seal and one entry that is something else."""

from __future__ import annotations

import copy
import io
import math
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Answer, random_images, tiny_config
from stopped import interrupted

from cifar_cli.data.loader import TrainLoader
from cifar_cli.errors import CheckpointError, ConfigError, OutOfMemoryError
from cifar_cli.models import build_model
from cifar_cli.rundir import RunDir
from cifar_cli.training import sealed
from cifar_cli.training.checkpoint import load_checkpoint, restore
from cifar_cli.training.document import check_document
from cifar_cli.training.optim import build_optimizer
from cifar_cli.training.resume import check_position, resumed_settings
from cifar_cli.training.sealed import seal
from cifar_cli.training.state import TrainState

Cli = Callable[..., Answer]
MISSING = object()


def quantised() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is giving them up, and says so
        return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


VALUES: dict[str, Any] = {
    "missing": MISSING, "None": None, "true": True, "negative": -1, "huge": 2**62,
    "a number of 400 digits": 10**400, "NaN": math.nan, "infinity": math.inf, "text": "text",
    "bytes": b"bytes", "no list": [], "list": [[1]], "no dictionary": {}, "dictionary": {"a": 1},
    "sparse": torch.ones(2, 2).to_sparse(), "meta": torch.zeros(3, device="meta"),
    "quantised": quantised(), "complex": torch.zeros(2, dtype=torch.complex64),
    "repeated": torch.zeros(1).expand(2**40), "a single number": torch.tensor(7),
}  # fmt: skip
NEVER_VALID = ("bytes", "complex", "meta", "sparse", "quantised", "repeated")
IGNORED = {"param_groups"}  # a resumed run takes the optimiser's settings from its configuration


def entries(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of the parts of a tree; of those that are many of a kind, the first two."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    many = {"weights", "class_names", "config", "state", "param_groups", "tensors", "params"}
    for key, value in list(items)[: 2 if many & set(path) and "state" not in path[:-1] else None]:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from entries(value, (*path, key))


def replaced(document: Any, path: tuple[Any, ...], value: object) -> Any:
    """A copy of the tree with one entry replaced or removed; tensors are not copied."""
    if not path:
        return value
    changed = copy.copy(document)
    if len(path) == 1 and value is MISSING:
        del changed[path[0]]
    else:
        changed[path[0]] = replaced(document[path[0]], path[1:], value)
    return changed


def write(path: Path, document: object) -> None:
    buffer = io.BytesIO()
    torch.save(document, buffer)
    path.write_bytes(seal(buffer.getvalue()))


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the checkpoint of a run holds that was stopped in its second epoch."""
    run = interrupted(tmp_path_factory.mktemp("entries") / "a")
    return torch.load(run.last, weights_only=True)


@pytest.mark.fault(14)
@pytest.mark.fault(65)
def test_no_entry_of_a_checkpoint_can_be_anything_else(document: Any, tmp_path: Path) -> None:
    config = tiny_config(train__epochs=3)
    loader = TrainLoader(random_images(100), config, torch.device("cpu"))
    model = build_model(config.model, 10, 32)
    path = tmp_path / "checkpoints" / "last.pt"
    path.parent.mkdir()

    def resume(content: object) -> None:
        check_document(content, str(path))  # refuses most, much faster than a file is written
        write(path, content)
        checkpoint = load_checkpoint(path)
        resumed_settings(config, checkpoint, True)
        state = TrainState(model, build_optimizer(model, config.optim, 0.01))
        restore(state, checkpoint)
        check_position(state, checkpoint, loader, [])

    passed, messages, paths = [], [], list(entries(document))
    for entry in paths:
        for name, value in VALUES.items():
            try:
                resume(replaced(document, entry, value))
            except CheckpointError as error:
                messages.append(str(error))
            except ConfigError:  # a setting that is valid, but must not be changed
                assert entry[0] == "config", (entry, name)
            except Exception as error:
                pytest.fail(f"{entry} = {name}: {error!r}")
            else:
                passed.append((entry, name))
    assert len(paths) > 40
    assert [m for m in messages if str(path) not in m or len(m) > 600] == []
    # What is ignored, and settings that may be missing, as older files lack newer ones.
    used = [p for p in passed if not IGNORED & set(p[0])]
    assert [p for p in used if p[1] in NEVER_VALID] == []
    assert {entry[0] for entry, name in used if name == "missing"} <= {"config"}
    assert [p for p in used if p[1] in ("None", "missing") and p[0][0] == "training"] == []


@pytest.mark.fault(14)
@pytest.mark.parametrize(
    ("entry", "value", "told"),
    [
        (("training", "optimizer"), MISSING, "training.optimizer: field required"),
        (("training", "step"), "2", "training.step: input should be a valid integer"),
        (("training", "losses"), torch.ones(9), "losses has 9 numbers for 2 steps"),
        (("training", "rng", "cpu"), torch.zeros(5, dtype=torch.uint8), "training.rng.cpu: it is"),
        (("training", "history"), [], "history does not hold the epochs before epoch 2"),
        (("training", "correct"), 10**6, "training.correct is 1000000, and an epoch has 100"),
        (("training", "epoch"), 2.5, "training.epoch: input should be a valid integer"),
        (("training", "seconds"), math.nan, "training.seconds: input should be"),
        (("training", "optimizer", "state", 0, "exp_avg"), torch.ones(3), "state.0 does not fit"),
        (("weights", "prep.0.weight"), [1.0], "weights.prep.0.weight: input should be an instance"),
        (("weights", "prep.0.weight"), torch.ones(4, 3, 3, 3).int(), "prep.0.weight is 4x3x3x3 of"),
        (("config", "model", "width"), 1024, "prep.0.weight is 4x3x3x3 in the file, 1024x3x3x3"),
        (("config", "seed"), "x", "Wrong settings: seed = 'x'"),
        (("class_names",), list(range(10)), "class_names.0: input should be a valid string"),
        (("version",), torch.ones(2), "has version unknown; this program reads version 2"),
        (("format",), None, "is not a checkpoint of cifar-resnet"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
@pytest.mark.fault(65)
def test_a_resume_names_the_entry_that_is_wrong_and_touches_nothing(
    document: Any, cli: Cli, in_tmp: Path, entry: tuple[Any, ...], value: object, told: str
) -> None:
    run = RunDir(in_tmp / "a")
    run.last.parent.mkdir(parents=True)
    write(run.last, replaced(document, entry, value))
    before = run.last.read_bytes()
    answer = cli("train", "--resume", "--run-dir", "a", "--data", "shapes")
    assert (answer.code, told in answer.err) == (4, True), answer.err
    assert "Traceback" not in answer.err
    assert run.last.read_bytes() == before
    assert [p.name for p in run.path.iterdir()] == ["checkpoints"]


@pytest.mark.fault(65)
def test_settings_without_end_are_refused(document: Any) -> None:
    tree: dict[str, Any] = dict(document["config"])
    tree["data"] = tree
    with pytest.raises(CheckpointError, match="config: it is nested too deeply"):
        check_document({**document, "config": tree}, "last.pt")
    for many in ({"x" * 9000 + str(n): 0 for n in range(10_000)}, {"x": [[0] * 40] * 40}):
        with pytest.raises(CheckpointError, match="config: it holds more than 1,000 values"):
            check_document({**document, "config": many}, "last.pt")


UNUSUAL = [
    getattr(torch, name)
    for name in (
        "float8_e4m3fn", "float8_e8m0fnu", "float4_e2m1fn_x2", "uint4", "int4", "bits8", "bits16",
        "uint16", "uint64", "complex64",
    )
    if hasattr(torch, name)
]  # fmt: skip


@pytest.mark.fault(93)
def test_tensors_of_a_type_that_only_few_operations_know_are_refused(document: Any) -> None:
    tensors = [
        ("training", "losses"),
        ("training", "optimizer", "state", 0, "exp_avg"),
        ("training", "optimizer", "state", 0, "step"),
        ("weights", "prep.0.weight"),
        ("weights", "prep.1.num_batches_tracked"),
    ]
    assert len(UNUSUAL) > 5
    for dtype in UNUSUAL:
        for entry in tensors:
            tensor = document
            for key in entry:
                tensor = tensor[key]
            changed = replaced(document, entry, torch.empty(tensor.shape, dtype=dtype))
            with pytest.raises(CheckpointError, match=f"it is a tensor of {dtype}"):
                check_document(changed, "last.pt")


@pytest.mark.fault(93)
def test_numbers_of_any_precision_are_trained_on_as_float32(document: Any, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    config = tiny_config(train__epochs=3)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        write(path, converted(document, dtype))
        checkpoint = load_checkpoint(path)
        model = build_model(config.model, 10, 32)
        state = TrainState(model, build_optimizer(model, config.optim, 0.01))
        restore(state, checkpoint)
        kept = [value for values in state.optimizer.state.values() for value in values.values()]
        tensors = [*state.losses, *kept, *(t for t in model.state_dict().values() if t.ndim)]
        assert {tensor.dtype for tensor in tensors} == {torch.float32}, dtype


@pytest.mark.fault(65)
@pytest.mark.parametrize("step", [float("nan"), float("inf"), -1.0, [1.0, 2.0]])
def test_a_step_of_the_optimiser_is_a_count(document: Any, step: object) -> None:
    entry = ("training", "optimizer", "state", 0, "step")
    changed = replaced(document, entry, torch.tensor(step))
    with pytest.raises(CheckpointError, match="the step of parameter 0 is not a count"):
        check_document(changed, "last.pt")


def converted(value: Any, dtype: torch.dtype) -> Any:
    """A tree with all its floating-point tensors in another precision."""
    if isinstance(value, dict):
        return {key: converted(inner, dtype) for key, inner in value.items()}
    if isinstance(value, list):
        return [converted(inner, dtype) for inner in value]
    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.to(dtype) if is_float else value


@pytest.mark.fault(66)
def test_files_that_are_not_regular_or_full_of_holes_are_refused_at_once(tmp_path: Path) -> None:
    holes = tmp_path / "holes.pt"
    with holes.open("wb") as file:
        file.truncate(20 * 2**30)
    os.mkfifo(tmp_path / "fifo.pt")
    (tmp_path / "folder.pt").mkdir()
    (tmp_path / "device.pt").symlink_to("/dev/zero")
    for name in ("holes.pt", "fifo.pt", "folder.pt", "device.pt"):
        with pytest.raises(CheckpointError, match=r"damaged|not a regular file"):
            load_checkpoint(tmp_path / name)


@pytest.mark.fault(67)
def test_a_sealed_file_beyond_all_memory_is_said_to_be(
    document: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    write(path, document)
    monkeypatch.setattr(sealed, "memory", lambda process: 1000.0)
    with pytest.raises(OutOfMemoryError, match=r"Out of memory while .*last\.pt is read"):
        load_checkpoint(path)


@pytest.mark.fault(67)
def test_an_archive_that_grows_when_it_is_read_is_refused(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "last.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    path.write_bytes(seal(path.read_bytes()))
    assert path.stat().st_size < 100_000
    with pytest.raises(CheckpointError, match="not a checkpoint of cifar-resnet"):
        load_checkpoint(path)
