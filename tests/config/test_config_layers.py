"""Settings without effect, recipes that extend others, and configurations of earlier versions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Answer, tiny_config
from stopped import Stop, same_run

from cifar_cli import evaluate, load_model, train
from cifar_cli.config import load_config, migration, recipe_names, recipe_text
from cifar_cli.config.loading import config_yaml
from cifar_cli.errors import CheckpointError, ConfigError, Interrupted
from cifar_cli.rundir import RunDir
from cifar_cli.training.checkpoint import load_checkpoint
from cifar_cli.training.sealed import seal

Cli = Callable[..., Answer]
WIDTH = "model.width has no effect with model.name speed_resnet; it belongs to custom_resnet"


@pytest.mark.parametrize(
    ("recipe", "arguments", "words"),
    [
        ("fast90", ["--set", "model.width=8"], WIDTH),
        ("fast90", ["--dropout", "0.5"], "model.dropout has no effect with model.name speed_res"),
        ("fast90", ["--pct-start", "0.3"], "schedule.pct_start has no effect with schedule.name"),
        ("fast90", ["--div-factor", "3"], "schedule.name linear; it belongs to one_cycle"),
        ("fast90", ["--set", "data.workers=8"], "form tensor; it belongs to albumentations"),
        ("fast90", ["--set", "data.image_size=64"], "no effect with train.resolutions"),
        ("fast90", ["--set", "augment.flip_p=0.5"], "no effect with augment.flip alternating"),
        ("fast90", ["--set", "augment.cutout_size=9"], "no effect with augment.cutout_p 0.0"),
        ("fast90", ["--set", "optim.max_lr=auto"], "auto is for adam"),
        ("baseline", ["--set", "model.widths=[8,8,8]"], "it belongs to speed_resnet"),
        ("baseline", ["--set", "optim.bias_lr=3"], "optim.name adam; it belongs to muon"),
        ("baseline", ["--set", "augment.translate=2"], "albumentations; it belongs to tensor"),
        ("baseline", ["--set", "augment.flip=alternating"], "it belongs to tensor"),
        ("baseline", ["--set", "optim.name=lion"], "optim.name = 'lion': input should be 'adam'"),
        ("fast90", ["--set", "model.lookahead=1"], "unknown setting 'model.lookahead'"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else None,
)
def test_a_setting_without_effect_is_refused(
    cli: Cli, recipe: str, arguments: list[str], words: str
) -> None:
    answer = cli("train", "--recipe", recipe, "--data", "shapes", *arguments)
    assert answer.code == 2
    assert words in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize("way", ["--config", "--recipe", "environment"])
def test_it_is_refused_wherever_it_comes_from(
    cli: Cli, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    (in_tmp / "mine.yaml").write_text("extends: fast90\nmodel: {width: 8}\n")
    (in_tmp / "more.yaml").write_text("model: {width: 8}\n")
    if way == "environment":
        monkeypatch.setenv("CIFAR_RESNET_MODEL__WIDTH", "8")
    options = {
        "--config": ["--recipe", "fast90", "--config", "more.yaml"],
        "--recipe": ["--recipe", "mine.yaml"],
        "environment": ["--recipe", "fast90"],
    }[way]
    for command in ("summary", "find-lr", "train"):
        answer = cli(command, *options)
        assert (answer.code, answer.err) == (2, f"Error: Wrong settings: {WIDTH}.\n")


def test_a_later_name_drops_what_only_the_former_one_has() -> None:
    config = load_config("demo", overrides=["model.name=speed_resnet", "optim.name=muon"], env={})
    assert config.model == load_config({"model": {"name": "speed_resnet"}}, env={}).model
    assert (config.optim.max_lr, config.optim.weight_decay) == (0.005, 1e-4)  # of both
    workers = {"data": {"workers": 2}}
    assert load_config(workers, overrides=["augment.form=tensor"], env={}).data.workers == 0
    env = {"CIFAR_RESNET_MODEL__WIDTH": "8"}
    assert load_config(env=env, overrides=["model.name=speed_resnet"]).model == config.model
    same = ["model.name=speed_resnet", "model.width=8"]
    for overrides in (same, same[::-1]):
        with pytest.raises(ConfigError, match=WIDTH):
            load_config(overrides=overrides, env={})


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("fast90", ["augment.cutout_p=1", "augment.cutout_size=9"]),
        ("baseline", ["augment.cutout_p=0"]),  # the recipe has a size
        ("fast94", ["data.image_size=64"]),  # of the last third of the steps
        ("fast90", ["data.image_size=64", "train.resolutions=[[1.0, 56]]"]),
        ("fast90", ["data.workers=0"]),
        ("baseline", ["runtime.winograd=false", "runtime.native=false"]),
    ],
)
def test_what_has_an_effect_or_turns_something_off_passes(
    recipe: str, overrides: list[str]
) -> None:
    load_config(recipe, overrides=overrides, env={})


def test_a_network_classifies_at_the_size_of_its_last_step(in_tmp: Path) -> None:
    sizes = {name: load_config(name, env={}).eval_size for name in recipe_names()}
    assert {name for name, size in sizes.items() if size == 28} == {"fast90", "fast92"}
    assert {size for name, size in sizes.items() if name not in ("fast90", "fast92")} == {32}
    config = tiny_config(train__resolutions=[[0.5, 16], [1.0, 24]], train__epochs=1)
    train(config, "a")
    assert load_model("a").eval_size == 24


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_a_recipe_extends_a_built_in_one_or_a_file_beside_it(in_tmp: Path) -> None:
    write(in_tmp / "a" / "base.yaml", "extends: fast90\ntrain: {epochs: 2}\n")
    name = write(in_tmp / "a" / "b" / "mine.yaml", "extends: ../base.yaml\nmodel: {residual: true}")
    config, fast90 = load_config(name, env={}), load_config("fast90", env={})
    assert (config.train.epochs, config.model.residual) == (2, True)  # type: ignore[union-attr]
    assert config.optim == fast90.optim
    assert load_config({"extends": "fast90"}, env={}) == fast90
    absolute = write(in_tmp / "c.yaml", f"extends: {name}\n")
    assert load_config(absolute, env={}) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("extends: mine.yaml\n", "is a circle"),
        ("extends: other.yaml\n", "is a circle"),
        ("extends: fats90\n", "did you mean 'fast90'"),
        ("extends: missing.yaml\n", "Cannot read the configuration file"),
        ("extends: 3\n", "expected a recipe's name or a path, not 3"),
        ("extends: [fast90]\n", "expected a recipe's name or a path"),
        ("extends: 0.yaml\n", "is longer than 10"),
    ],
)
def test_recipes_that_cannot_be_extended_are_refused(
    cli: Cli, in_tmp: Path, text: str, words: str
) -> None:
    write(in_tmp / "mine.yaml", text)
    write(in_tmp / "other.yaml", "extends: ./mine.yaml\n")
    for n in range(20):
        write(in_tmp / f"{n}.yaml", f"extends: {n + 1}.yaml\n")
    answer = cli("summary", "--recipe", "mine.yaml")
    assert answer.code == 2
    assert words in answer.err
    assert answer.err.count("\n") == 1


def test_only_recipes_extend(cli: Cli, in_tmp: Path) -> None:
    write(in_tmp / "mine.yaml", "extends: fast90\n")
    answer = cli("summary", "--config", "mine.yaml")
    assert answer.code == 2
    assert "give it to --recipe" in answer.err


@pytest.mark.parametrize("name", recipe_names())
def test_a_copied_recipe_is_the_same_anywhere(name: str, in_tmp: Path) -> None:
    copied = write(in_tmp / "elsewhere" / "mine.yaml", recipe_text(name))
    assert load_config(copied, env={}) == load_config(name, env={})


OLD: dict[str, dict[str, Any]] = {
    "data": {"workers": 3},
    "augment": {"translate": 0, "flip": "random"},
    "model": {
        "width": 64, "dropout": 0.02, "residual_dropout": 0.05, "widths": [32, 96, 192],
        "convolutions": 2, "strided": 0, "residual": False, "eval_size": None,
    },
    "optim": {"momentum": 0.7, "bias_lr": 27.0, "head_lr": 343.0, "sgd_momentum": 0.85},
    "schedule": {"div_factor": 2000.0, "final_div_factor": 100.0, "pct_start": 0.2},
    "train": {"average_last": 0.0, "lookahead": 0},
}  # fmt: skip


def as_version_1(tree: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A complete configuration as version 1 wrote it, with the settings of all classes."""
    old = {key: value for key, value in tree.items() if key != "schema_version"}
    for section, values in OLD.items():
        old[section] = {**values, **old[section]}
    if old["augment"]["form"] == "tensor":
        old["data"]["workers"] = 3  # which had no effect
    for key, value in changes.items():
        section, name = key.split("__")
        old[section][name] = value
    return old


@pytest.mark.parametrize("name", recipe_names())
@pytest.mark.parametrize("way", ["recipe", "config_file"])
def test_a_complete_configuration_of_version_1_loads(name: str, way: str, in_tmp: Path) -> None:
    config = load_config(name, env={})
    size = None if config.eval_size == 32 else config.eval_size
    old = as_version_1(yaml.safe_load(config_yaml(config)), model__eval_size=size)
    file = write(in_tmp / "config.yaml", yaml.safe_dump(old))
    assert load_config(**{way: file}, env={}) == config  # type: ignore[arg-type]
    (in_tmp / "config.yaml").write_text(config_yaml(config))
    assert load_config(**{way: file}, env={}) == config  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [4, 0, True, "2", None, 1.0])
def test_an_unknown_version_is_refused(version: object) -> None:
    with pytest.raises(ConfigError, match=r"schema_version = .* knows the versions 1 to 3"):
        load_config({"schema_version": version}, env={})


def test_a_renamed_setting_keeps_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = {"train.passes": "train.epochs", "data.seed": "seed", "lr": "optim.max_lr"}
    monkeypatch.setitem(migration.RENAMED, 2, renamed)
    old = {"train": {"passes": 7}, "data": {"seed": 5}, "lr": 0.5}
    config = load_config(old, env={})
    assert (config.train.epochs, config.seed, config.optim.max_lr) == (7, 5, 0.5)
    with pytest.raises(ConfigError, match="unknown setting"):  # of this version, it is a mistake
        load_config({"schema_version": 2, **old}, env={})


@pytest.mark.parametrize(
    ("setting", "passes"),
    [
        ("model.eval_size=28", True), ("model.eval_size=32", False), ("model.strided=0", True),
        ("model.strided=1", False), ("train.lookahead=0", True), ("train.lookahead=5", False),
        ("train.average_last=0.0", True), ("train.average_last=0.1", False),
    ],
)  # fmt: skip
def test_a_dropped_setting_may_be_written_where_it_changes_nothing(
    setting: str, passes: bool
) -> None:
    if passes:
        assert load_config("fast90", overrides=[setting], env={}) == load_config("fast90", env={})
        return
    with pytest.raises(ConfigError, match="is no longer a setting: "):
        load_config("fast90", overrides=[setting], env={})


def rewritten(run: RunDir, **changes: Any) -> None:
    """Make a run look as if version 1 had trained it, with these settings changed."""
    for path in run.last.parent.iterdir():
        content = torch.load(path, weights_only=True)
        content["config"] = as_version_1(content["config"], **changes)
        if content["training"]:
            content["training"]["mean"] = {"count": 0, "kind": "mean", "tensors": []}
        torch.save(content, path)
        path.write_bytes(seal(path.read_bytes()))
    run.config.write_text(yaml.safe_dump(as_version_1(yaml.safe_load(run.config.read_text()))))


SPEED = {
    "model__name": "speed_resnet", "model__widths": [4, 4, 4], "train__epochs": 3,
    "train__resolutions": [[0.5, 20], [1.0, 28]],
}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "old"),
    [({"train__epochs": 3}, {}), (SPEED, {"model__eval_size": 28})],
    ids=["custom_resnet", "speed_resnet"],
)
def test_a_run_of_version_1_is_evaluated_and_resumed_to_the_same_figures(
    cli: Cli, in_tmp: Path, settings: dict[str, Any], old: dict[str, Any]
) -> None:
    config = tiny_config(**settings)
    train(config, "whole")
    before = evaluate("whole")
    with pytest.raises(Interrupted):
        train(config, "a", observer=Stop(2, 2))
    for name in ("whole", "a"):
        rewritten(RunDir(in_tmp / name), **old)
    assert evaluate("whole") == before
    assert cli("train", "--resume", "--run-dir", "a").code == 0
    assert same_run(RunDir(in_tmp / "a"), RunDir(in_tmp / "whole"))
    assert "schema_version: 3" in (in_tmp / "a" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("old", "words"),
    [
        ({"train__lookahead": 5}, "train.lookahead = 5 is no longer"),
        ({"train__average_last": 0.5}, "train.average_last = 0.5 is no longer"),
        ({"model__eval_size": 24}, "model.eval_size = 24 is no longer"),
    ],
    ids=str,
)
def test_an_old_run_that_used_what_was_dropped_is_evaluated_but_not_resumed(
    cli: Cli, in_tmp: Path, old: dict[str, Any], words: str
) -> None:
    run = RunDir(train(tiny_config(**{**SPEED, "train__epochs": 1}), "a").run_dir)
    rewritten(run, **{"model__eval_size": 28, **old})
    assert load_checkpoint(run.last).eval_size == old.get("model__eval_size", 28)
    assert load_model("a").eval_size == old.get("model__eval_size", 28)
    evaluate("a")
    answer = cli("train", "--resume", "--run-dir", "a")
    assert answer.code == 4
    assert words in answer.err


def test_an_old_checkpoint_of_a_strided_network_is_refused(in_tmp: Path) -> None:
    run = RunDir(train(tiny_config(**{**SPEED, "train__epochs": 1}), "a").run_dir)
    rewritten(run, model__eval_size=28, model__strided=1)
    with pytest.raises(CheckpointError, match=r"model\.strided = 1 is no longer a setting"):
        evaluate("a")


def test_an_old_run_that_was_stopped_before_its_first_checkpoint_starts_over(
    cli: Cli, in_tmp: Path
) -> None:
    run = RunDir(train(tiny_config(train__epochs=1), "a").run_dir)
    for file in (*run.last.parent.iterdir(), run.result, run.path / "metrics.csv"):
        file.unlink()
    run.config.write_text(yaml.safe_dump(as_version_1(yaml.safe_load(run.config.read_text()))))
    answer = cli("train", "--resume", "--run-dir", "a")
    assert answer.code == 0, answer.err
