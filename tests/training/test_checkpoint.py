"""Checkpoints: whole, verified, plain values only, and back to the bit."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from conftest import on_cpu, random_images, tiny_config
from hypothesis import given
from hypothesis import strategies as st

from cifar_cli.data.loader import TrainLoader
from cifar_cli.errors import CheckpointError
from cifar_cli.models import build_model
from cifar_cli.training.checkpoint import (
    load_checkpoint,
    load_newest,
    restore,
    save_checkpoint,
    seal,
)
from cifar_cli.training.loop import train_epochs
from cifar_cli.training.optim import apply_settings, build_optimizer
from cifar_cli.training.schedule import StepSettings
from cifar_cli.training.state import TrainState

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
    pauses = iter([False] * 4 + [True])
    epochs = train_epochs(
        state, loader, random_images(10), CONFIG, on_cpu(CONFIG), pause=lambda: next(pauses)
    )
    assert next(epochs) is not None
    assert next(epochs) is None
    assert (state.epoch, state.step) == (2, 2)
    return state


@pytest.fixture
def saved(trained: TrainState, tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "last.pt"
    save_checkpoint(path, trained, CONFIG, NAMES, "")
    return path


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a checkpoint."""
    path = tmp_path_factory.mktemp("sealed") / "best.pt"
    save_checkpoint(path, fresh(), CONFIG, NAMES, "", weights_only=True)
    return path.read_bytes()


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


def test_adams_averages_take_on_the_memory_layout_of_the_weights(
    trained: TrainState, saved: Path
) -> None:
    other = fresh()
    other.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    restore(other, load_checkpoint(saved))
    for state in (trained, other):
        apply_settings(state.optimizer, StepSettings(lr=0.01, beta1=0.9))
        for p in state.model.parameters():
            p.grad = torch.full_like(p, 0.5)
        state.optimizer.step()
    for one, two in zip(trained.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(one, two.contiguous())


def test_only_tensors_and_plain_values_are_inside(saved: Path) -> None:
    torch.load(saved, weights_only=True)  # refuses every other class


def test_weights_alone_are_smaller_and_cannot_be_resumed(trained: TrainState, saved: Path) -> None:
    best = saved.with_name("best.pt")
    save_checkpoint(best, trained, CONFIG, NAMES, "", weights_only=True)
    assert best.stat().st_size < saved.stat().st_size / 2
    with pytest.raises(CheckpointError, match="weights only"):
        restore(fresh(), load_checkpoint(best))


def test_saving_again_keeps_the_one_before(trained: TrainState, saved: Path) -> None:
    first = saved.read_bytes()
    trained.seconds += 1
    save_checkpoint(saved, trained, CONFIG, NAMES, "")
    assert saved.with_name("previous.pt").read_bytes() == first
    assert saved.read_bytes() != first
    assert sorted(p.name for p in saved.parent.iterdir()) == ["last.pt", "previous.pt"]


@pytest.mark.fault(9)
@given(data=st.data())
def test_any_one_byte_changed_is_noticed_by_the_checksum(
    sealed: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(sealed)
    # The end, where the checksum itself lies, and the rest.
    place = data.draw(st.integers(-70, -1) | st.integers(0, len(sealed) - 1))
    damaged[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("damaged") / "last.pt"
    path.write_bytes(damaged)
    said = "its checksum does not fit" if damaged.startswith(b"PK\3\4") else "not a checkpoint, or"
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(path)


@pytest.mark.fault(16)
@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_prefixes_of_compiled_and_parallel_models_are_taken_off(
    saved: Path, trained: TrainState, prefix: str
) -> None:
    content = torch.load(saved, weights_only=True)
    content["weights"] = {prefix + name: t for name, t in content["weights"].items()}
    torch.save(content, saved)
    found = load_checkpoint(saved).weights
    own = trained.model.state_dict()
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)


@pytest.mark.fault(8)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused_and_the_previous_one_used(
    trained: TrainState, saved: Path, share: float
) -> None:
    save_checkpoint(saved, trained, CONFIG, NAMES, "")
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"(is empty|checksum).* Use .*previous\.pt"):
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


@pytest.mark.fault(10, 11)
@pytest.mark.parametrize("force", [None, "1"])
@pytest.mark.parametrize("how", ["torch", "sealed", "pickle"])
def test_code_in_a_file_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, force: str | None
) -> None:
    if force:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", force)
    path, trap = tmp_path / "evil.pt", tmp_path / "trap"
    if how != "pickle":
        torch.save({"format": Bomb(trap)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(trap)))
    if how == "sealed":
        path.write_bytes(seal(path.read_bytes()))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not trap.exists()


@pytest.mark.fault(14, 15)
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
