"""What `recipes explain` and doc/settings.md say of settings, against schema and source."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Answer, tiny_config

from cifar_cli import evaluate, train
from cifar_cli.config import Config
from cifar_cli.config.explain import READERS
from cifar_cli.config.schema import Section
from cifar_cli.config.settings import SECTIONS, SETTINGS, all_settings, variants

Cli = Callable[..., Answer]
ROOT = Path(__file__).parents[2]


def test_the_page_of_settings_and_the_readers_are_those_of_schema_and_source() -> None:
    generator = runpy.run_path(str(ROOT / "doc" / "generate_settings.py"))
    assert json.loads(READERS.read_text(encoding="utf-8")) == generator["readers"]()
    assert (ROOT / "doc" / "settings.md").read_text(encoding="utf-8") == generator["text"]()
    assert all(generator["readers"]().values())  # each setting is read by somebody


def test_who_reads_a_setting_in_a_run_is_among_its_readers(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {cls: name for name in SECTIONS for cls in variants(name).values()}
    seen: set[tuple[str, str]] = set()

    def noted(self: Section, name: str) -> Any:
        module = str(sys._getframe(1).f_globals["__name__"])
        section = sections.get(type(self), "")
        key = f"{section}.{name}" if section else name
        if key in SETTINGS and module.startswith("cifar_cli.") and ".config" not in module:
            seen.add((key, module.removeprefix("cifar_cli.")))
        return object.__getattribute__(self, name)

    config = tiny_config(train__epochs=1, augment__form="albumentations")
    monkeypatch.setattr(Section, "__getattribute__", noted, raising=False)
    evaluate(train(config, "run").run_dir)
    speed = tiny_config(
        model__name="speed_resnet", model__widths=[4, 4, 4], optim__name="muon",
        schedule__name="linear", augment__translate=1, augment__flip="alternating",
        train__epochs=1, train__resolutions=[[1.0, 20]],
    )  # fmt: skip
    train(speed, "speed")
    monkeypatch.undo()
    readers = json.loads(READERS.read_text(encoding="utf-8"))
    assert {(key, module) for key, module in seen if module not in readers[key]} == set()
    assert len({key for key, _ in seen}) > 40


def test_each_setting_is_explained_with_default_values_and_where_it_belongs(cli: Cli) -> None:
    for key, variant, field in all_settings():
        found = cli("recipes", "explain", key, "--json").json["settings"]
        (one,) = [e for e in found if variant in e["belongs_to"] or not e["belongs_to"]]
        assert one["key"] == key
        assert one["meaning"][-1] == "."
        assert one["values"]
        assert one["read_by"]
        if one["belongs_to"]:
            assert one["default"] == json.loads(json.dumps(field.default))
    width = cli("recipes", "explain", "model.width").out
    for words in (
        "Channels of the prep layer.", "whole number at least 1 and at most 1,024", "64",
        "model.name custom_resnet", "models.registry", "CIFAR_RESNET_MODEL__WIDTH",
    ):  # fmt: skip
        assert words in width
    rates = cli("recipes", "explain", "optim.max_lr", "--json").json["settings"]
    assert [rate["belongs_to"] for rate in rates] == [["adam"], ["muon"]]


def test_a_section_is_explained_as_a_whole(cli: Cli) -> None:
    found = cli("recipes", "explain", "model", "--json").json["settings"]
    keys = [entry["key"] for entry in found]
    assert keys == [key for key in SETTINGS if key.startswith("model.")]
    assert found[0]["default"] == Config().model.name


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("model.widht", "did you mean 'model.width'"),
        ("max_lr", "did you mean 'optim.max_lr'"),
        ("modell", "did you mean 'model'"),
        ("train.lookahead", "no longer a setting: it did not help"),
        ("x" * 200, "no setting"),
        ("", "no setting ''"),
    ],
)
def test_an_unknown_setting_ends_with_the_nearest(cli: Cli, key: str, words: str) -> None:
    answer = cli("recipes", "explain", key)
    assert answer.code == 2
    assert words in answer.err
    assert len(answer.err) < 300
