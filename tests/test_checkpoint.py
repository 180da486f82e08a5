"""Checkpoints: whole, verified, plain values only, and back to the bit."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from conftest import random_images, tiny_config

from cifar_cli.data.loader import TrainLoader
from cifar_cli.errors import CheckpointError, StorageError
from cifar_cli.models import build_model
from cifar_cli.training.checkpoint import load_checkpoint, load_newest, restore, save_checkpoint
from cifar_cli.training.optim import build_optimizer
from cifar_cli.training.trainer import TrainState, train_epochs

CONFIG = tiny_config()
NAMES = tuple("abcdefghij")


def fresh(width: int = 4) -> TrainState:
    model = build_model(CONFIG.model.model_copy(update={"width": width}), 10, 32)
    return TrainState(model, build_optimizer(model, CONFIG.optim, 0.01))


@pytest.fixture
def trained() -> TrainState:
    """A state in the middle of its second epoch."""
    state = fresh()
    loader = TrainLoader(random_images(70), CONFIG, torch.device("cpu"))
    stops = iter([False] * 4 + [True])
    for _ in train_epochs(state, loader, random_images(10), CONFIG, stop=lambda: next(stops)):
        pass
    assert (state.epoch, state.step) == (2, 2)
    return state


@pytest.fixture
def saved(trained: TrainState, tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "last.pt"
    save_checkpoint(path, trained, CONFIG, NAMES)
    return path


def test_everything_comes_back_equal(trained: TrainState, saved: Path) -> None:
    before = torch.get_rng_state()
    other = fresh()
    checkpoint = load_checkpoint(saved)
    restore(other, checkpoint)
    assert torch.equal(torch.get_rng_state(), before)
    assert checkpoint.config == CONFIG
    assert checkpoint.class_names == NAMES
    assert other.history == trained.history
    assert (other.epoch, other.step, other.seconds) == (2, 2, trained.seconds)
    assert torch.equal(torch.stack(other.losses), torch.stack(trained.losses))
    assert other.correct == trained.correct
    for one, two in zip(
        trained.model.state_dict().values(), other.model.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two)
    old, new = trained.optimizer.state_dict(), other.optimizer.state_dict()
    for key, moments in old["state"].items():
        for name, value in moments.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(new["state"][key][name]))


def test_only_tensors_and_plain_values_are_inside(saved: Path) -> None:
    torch.load(saved, weights_only=True)  # refuses every other class


def test_weights_alone_are_smaller_and_cannot_be_resumed(trained: TrainState, saved: Path) -> None:
    best = saved.with_name("best.pt")
    save_checkpoint(best, trained, CONFIG, NAMES, weights_only=True)
    assert best.stat().st_size < saved.stat().st_size / 2
    with pytest.raises(CheckpointError, match="weights only"):
        restore(fresh(), load_checkpoint(best))


def test_saving_again_keeps_the_one_before(trained: TrainState, saved: Path) -> None:
    first = saved.read_bytes()
    trained.seconds += 1
    save_checkpoint(saved, trained, CONFIG, NAMES)
    assert saved.with_name("previous.pt").read_bytes() == first
    assert saved.read_bytes() != first
    assert sorted(p.name for p in saved.parent.iterdir()) == ["last.pt", "previous.pt"]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_one_flipped_bit_is_noticed_or_touches_nothing(
    trained: TrainState, saved: Path, share: float
) -> None:
    data = bytearray(saved.read_bytes())
    data[int(share * len(data))] ^= 8
    saved.write_bytes(data)
    other = fresh()
    try:
        restore(other, load_checkpoint(saved))
    except CheckpointError:
        return
    # Padding between the tensors carries nothing.
    for one, two in zip(
        trained.model.state_dict().values(), other.model.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two)


def test_a_changed_weight_is_noticed_by_the_checksum(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    content["weights"]["classifier.weight"][0, 0] += 1e-6
    torch.save(content, saved)
    with pytest.raises(CheckpointError, match="checksum does not fit"):
        load_checkpoint(saved)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused_and_the_previous_one_used(
    trained: TrainState, saved: Path, share: float
) -> None:
    save_checkpoint(saved, trained, CONFIG, NAMES)
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        load_checkpoint(saved)
    newest = load_newest(saved)
    assert newest is not None
    assert newest.path.name == "previous.pt"


def test_where_all_are_damaged_the_error_stays_and_where_none_is_there_is_none(
    saved: Path, tmp_path: Path
) -> None:
    saved.write_bytes(b"")
    with pytest.raises(CheckpointError):
        load_newest(saved)
    assert load_newest(tmp_path / "nowhere" / "last.pt") is None


class Bomb:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path: Path, how: str) -> None:
    path, trap = tmp_path / "evil.pt", tmp_path / "trap"
    if how == "torch":
        torch.save({"format": Bomb(trap)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(trap)))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not trap.exists()


def test_other_files_newer_versions_and_other_networks_are_refused(
    saved: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.pt"
    torch.save({"state_dict": {}}, other)
    with pytest.raises(CheckpointError, match="not a checkpoint of cifar-resnet"):
        load_checkpoint(other)
    content = torch.load(saved, weights_only=True)
    content["version"] = 99
    torch.save(content, other)
    with pytest.raises(CheckpointError, match="version 99"):
        load_checkpoint(other)
    with pytest.raises(CheckpointError, match="another network"):
        restore(fresh(width=6), load_checkpoint(saved))
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        load_checkpoint(tmp_path / "nothing.pt")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    trained: TrainState, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        save_checkpoint(saved, trained, CONFIG, NAMES)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["last.pt"]
