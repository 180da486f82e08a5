"""A training that starts from the weights of a trained network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_FLAGS, Answer, rows, tiny_config
from stopped import Stop, same_run

from cifar_cli import load_config, train
from cifar_cli.config import Config, MuonConfig
from cifar_cli.config.schema import AdamConfig
from cifar_cli.errors import CheckpointError, ConfigError, Interrupted
from cifar_cli.models import build_model
from cifar_cli.rundir import RunDir
from cifar_cli.training.checkpoint import load_checkpoint, save_checkpoint
from cifar_cli.training.observer import Observer
from cifar_cli.training.optim import apply_settings, build_optimizer
from cifar_cli.training.pretrained import start_from
from cifar_cli.training.schedule import settings_at
from cifar_cli.training.state import TrainState

Cli = Callable[..., Answer]
Folders = Callable[..., Path]
SPEED = {"model": {"name": "speed_resnet", "widths": [8, 8, 8]}, "optim": {"name": "muon"}}


class Messages(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


def weights(run: str | Path, name: str = "last.pt") -> dict[str, torch.Tensor]:
    return load_checkpoint(Path(run) / "checkpoints" / name).weights


def saved(path: Path, classes: tuple[str, ...], **changes: object) -> Path:
    """A file of weights that were drawn, for these classes."""
    config = tiny_config(**changes)
    model = build_model(config.model, len(classes), 32)
    state = TrainState(model, build_optimizer(model, config.optim, 0.01))
    save_checkpoint(path, state, config, classes, "", weights_only=True)
    return path


def own(init: object, data: Path, **changes: object) -> Config:
    """A tiny training of pictures in folders, from weights."""
    config: Config = tiny_config(data__source=str(data), train__init=str(init), **changes)
    return config


def test_rows_of_the_head_are_matched_by_class_name(in_tmp: Path) -> None:
    found = load_checkpoint(saved(in_tmp / "a.pt", ("cat", "dog", "owl")))
    head = found.weights["classifier.weight"]
    start = start_from(found, ("owl", "cat", "dog"))
    assert not start.has_new_head
    assert torch.equal(start.weights["classifier.weight"], head[[2, 0, 1]])
    assert start.note.endswith("a.pt: all 49 tensors; the head is kept, since the classes are the "
                               "same.")  # fmt: skip
    for others in (("cat", "dog"), ("cat", "dog", "emu"), ("cat", "dog", "owl", "emu")):
        start = start_from(found, others)
        assert start.has_new_head
        assert "classifier.weight" not in start.weights
        assert start.note.endswith(f"48 of 49 tensors; new head for {len(others)} classes.")


@pytest.mark.parametrize("config", [AdamConfig(), MuonConfig(bias_lr=3.0, head_lr=2.0)])
@pytest.mark.parametrize("is_new", [True, False])
def test_layers_that_are_taken_over_train_at_a_share_of_the_rate(
    config: AdamConfig | MuonConfig, is_new: bool
) -> None:
    model = build_model(tiny_config().model, 3, 32)
    head = "classifier.weight"
    names = [n for n, _ in model.named_parameters() if n != head or not is_new]
    config = config.model_copy(update={"init_lr_scale": 0.25, "max_lr": 0.5})
    optimizer = build_optimizer(model, config, 0.5, names)
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    before = build_optimizer(model, config, 0.5).param_groups
    plain = {id(p): group for group in before for p in group["params"]}
    assert [*group_of] == [*plain]  # a checkpoint counts parameters in this order
    schedule = tiny_config().schedule
    for step in range(20):
        apply_settings(optimizer, settings := settings_at(step, 20, 0.5, schedule))
        for name, parameter in model.named_parameters():
            if id(parameter) not in plain:
                assert isinstance(config, MuonConfig)  # the scales of batch norm
                continue
            ratio = 1.0
            if isinstance(config, MuonConfig) and parameter.ndim < 4:
                ratio = (2.0 if name == head else 3.0) / 0.5
            share = 1.0 if is_new and name == head else 0.25
            rate = group_of[id(parameter)]["lr"]
            assert rate == pytest.approx(settings.lr * ratio * share), name


@pytest.mark.parametrize("network", [{}, SPEED], ids=["custom_resnet", "speed_resnet"])
def test_all_but_a_new_head_starts_from_the_weights(
    in_tmp: Path, class_folders: Folders, network: dict[str, Any]
) -> None:
    given = {f"{s}.{k}": v for s, keys in network.items() for k, v in keys.items()}
    flags = {"model__width": None} if network else {}
    changes = {key.replace(".", "__"): value for key, value in given.items()} | flags
    if network:
        changes["schedule__div_factor"] = None
    train(tiny_config(**changes), "first")
    best = weights("first", "best.pt")
    data = class_folders()
    frozen = {"optim__init_lr_scale": 0.0, "train__epochs": 1, "train__batch_size": 6}
    train(own("first", data, **changes, **frozen), "second")
    after = weights("second")
    head = [*best][-1]
    averages = ("running_mean", "running_var", "num_batches_tracked")
    same = [n for n in best if n != head and not n.endswith(averages)]
    if network:  # Muon puts filters to their norm, which the first training did already
        assert all(torch.allclose(best[n], after[n], atol=1e-5) for n in same)
        assert torch.equal(best["stem.weight"], after["stem.weight"])  # not whitened anew
    else:
        assert all(torch.equal(best[n], after[n]) for n in same)
    counts = [n for n in best if n.endswith("num_batches_tracked")]
    assert all(after[n] == best[n] + 2 for n in counts)  # statistics went on from those
    assert after[head].shape[0] == 3


@pytest.mark.fault(112)
@pytest.mark.parametrize("is_new", [True, False])
def test_a_resumed_fine_tuning_equals_one_that_was_never_stopped_without_the_first_run(
    in_tmp: Path, class_folders: Folders, is_new: bool
) -> None:
    classes = ("cat", "dog", "emu" if is_new else "owl")
    saved(in_tmp / "a.pt", classes)
    data = class_folders()
    config = own("a.pt", data, train__epochs=3, train__batch_size=4)
    train(config, "whole")
    with pytest.raises(Interrupted):
        train(config, "parts", observer=Stop(2, 2))
    stored = load_checkpoint(RunDir(Path("parts")).last)
    assert stored.config.train.init == str(in_tmp / "a.pt")
    assert stored.training
    assert stored.training.new_head == is_new
    Path("a.pt").unlink()
    train(config, "parts", resume=True)
    assert same_run(RunDir(Path("whole")), RunDir(Path("parts")))
    other = own("b.pt", data, train__epochs=4, train__batch_size=4)
    for allow in (False, True):
        with pytest.raises(ConfigError, match=r"train\.init .*a\.pt → b\.pt"):
            train(other, "parts", resume=True, allow_changes=allow)


def test_the_command_takes_over_network_normalisation_and_size(
    cli: Cli, class_folders: Folders
) -> None:
    speed = ["--set", "model.name=speed_resnet", "--set", "model.widths=[8, 8, 8]"]
    tiny = [part for flag in zip(TINY_FLAGS[::2], TINY_FLAGS[1::2], strict=True)
            if "model" not in flag[1] for part in flag]  # fmt: skip
    size = ["--set", "data.image_size=24", "--set", "data.std=[0.5, 0.5, 0.5]"]
    done = cli("train", *tiny, *speed, *size, "--name", "first")
    assert done.code == 0, done.err
    data = class_folders(("cat", "dog"), (8, 4), (64, 64))
    command = ("train", "--init", "first", "--data", data, "--epochs", 3)
    done = cli(*command, "--name", "second")
    assert done.code == 0, done.err
    assert "Recipe own" in done.err
    assert "image size 24" in done.err
    best = Path("runs/first/checkpoints/best.pt").absolute()
    assert f"Weights of {best}: 37 of 38 tensors; new head for 2 classes." in done.err
    config = RunDir(Path("runs/second")).read_config()
    assert config.train.init == str(best)
    assert config.model.model_dump()["widths"] == (8, 8, 8)
    assert config.data.normalisation == ((0.491, 0.482, 0.447), (0.5, 0.5, 0.5))
    assert (config.data.image_size, config.optim.name) == (24, "muon")
    assert load_config(data=data, settings={"train.init": "first", "train.epochs": 3}) == (
        config.model_copy(update={"data": config.data.model_copy(update={"dir": None})})
    )

    for wrong, told in (
        ("model.widths=[8, 8, 16]", "model.widths is [8, 8, 16] in the settings and [8, 8, 8] in"),
        ("model.name=custom_resnet", "model.name is custom_resnet in the settings and speed_res"),
    ):
        done = cli(*command, "--set", wrong)
        assert done.code == 2
        assert told in " ".join(done.err.split())
    done = cli(*command[:1], *command[3:], "--set", "optim.init_lr_scale=0.5")
    assert done.code == 2
    assert "optim.init_lr_scale has no effect with train.init null" in done.err

    shutil.rmtree("runs/first")
    assert cli(*command, "--name", "second", "--resume").code == 0
    done = cli("train", "--init", "other", "--name", "second", "--resume")
    assert done.code == 2
    assert "train.init" in done.err


def test_an_exported_file_starts_like_its_run_and_so_does_the_lr_range_test(
    cli: Cli, class_folders: Folders
) -> None:
    pytest.importorskip("safetensors")
    assert cli("train", *TINY_FLAGS, "--set", "optim.max_lr=0.001", "--name", "first").code == 0
    exported = Path("first.safetensors")
    done = cli("export", "first", "--format", "safetensors", "--out", exported)
    assert done.code == 0, done.err
    data = class_folders()
    common = ["--data", data, "--set", "train.batch_size=4", "--recipe", "demo"]
    common += ["--set", "model.width=4"]
    for name, init in (("a", "runs/first/checkpoints/last.pt"), ("b", exported)):
        done = cli("train", *common, "--init", init, "--epochs", 1, "--name", name)
        assert done.code == 0, done.err
    one, two = weights("runs/a"), weights("runs/b")
    assert all(torch.equal(one[n], two[n]) for n in one)
    curves = []
    for start in (["--init", exported], []):
        done = cli("find-lr", *common, *start, "--num-iter", 18)
        assert done.code == 0, done.err
        curves.append(rows(Path("lr_range/lr_range.csv"))[0])
        assert ("new head for 3 classes" in done.err) == bool(start)
        assert (f"--init {exported}" in " ".join(done.out.split())) == bool(start)
    assert curves[0] != curves[1]


@pytest.mark.fault(111)
@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("a.pt", lambda data: data[:-40] + b"x" + data[-39:], "checksum"),
        ("a.pt", lambda data: data[: len(data) // 2], "checksum"),
        ("a.pt", lambda data: b"", "a.pt"),
        ("a.safetensors", lambda data: data, "is not a file that cifar-resnet has exported"),
        ("a.onnx", lambda data: data, "cannot be trained"),
        ("gone.pt", lambda data: None, "there is no such file"),
    ],
)
def test_an_init_file_that_is_damaged_or_something_else_is_refused_before_training(
    in_tmp: Path, class_folders: Folders, name: str, change: Callable[[bytes], Any], told: str
) -> None:
    content = change(saved(in_tmp / "a.pt", ("cat", "dog")).read_bytes())
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(CheckpointError, match=told) as error:
        train(own(name, class_folders()), "run")
    assert name in str(error.value)
    assert not Path("run").exists()


@pytest.mark.fault(111)
def test_weights_of_another_network_or_not_finite_are_refused(
    in_tmp: Path, class_folders: Folders
) -> None:
    saved(in_tmp / "a.pt", ("cat", "dog"), model__width=8)
    told = r"model\.width is 4 in the settings and 8 in the weights"
    with pytest.raises(ConfigError, match=told):
        train(own("a.pt", class_folders()), "run")
    torch.save({"conv1.weight": torch.zeros(3)}, "b.pt")
    with pytest.raises(CheckpointError, match="is not a checkpoint of cifar-resnet"):
        train(own("b.pt", class_folders(name="two")), "run")
    content = torch.load("a.pt", weights_only=True)
    content["weights"]["prep.0.weight"][0] = torch.nan
    torch.save(content, "c.pt")
    with pytest.raises(CheckpointError, match=r"prep\.0\.weight holds values that are not finite"):
        train(own("c.pt", class_folders(name="three")), "run")
    assert not Path("run").exists()


@pytest.mark.fault(113)
def test_a_run_without_a_checkpoint_is_no_start(cli: Cli, class_folders: Folders) -> None:
    cli("train", *TINY_FLAGS, "--name", "first")
    folder = Path("runs/first/checkpoints")
    (folder / "best.pt").unlink()
    done = cli("train", "--init", "first", "--data", class_folders(), "--epochs", 1)
    assert done.code == 0
    assert "checkpoints/last.pt" in done.err.replace("\n", "")
    shutil.rmtree(folder)
    done = cli("train", "--init", "first", "--data", "images", "--epochs", 1)
    assert done.code == 4
    assert "the run runs/first has no checkpoint yet" in done.err
    done = cli("train", "--init", "fist", "--data", "images")
    assert done.code == 4
    assert "there is no such file, and no run 'fist' (did you mean 'first'?)" in done.err
