"""Configuration: defaults, layering, strict YAML, and messages a user can act on."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifar_cli.config import Config, load_config, recipe_names
from cifar_cli.config.loading import build_config, config_yaml
from cifar_cli.config.strict_yaml import dump_yaml, parse_yaml
from cifar_cli.errors import ConfigError


def test_baseline_recipe_holds_the_course_projects_settings() -> None:
    config = load_config("baseline", env={})
    assert config.optim.max_lr == 0.0465
    assert config.schedule.div_factor == 2000
    assert config.schedule.final_div_factor == 100
    assert config.schedule.pct_start == 5 / 24
    assert (config.train.epochs, config.train.batch_size, config.seed) == (24, 512, 1)
    assert (config.model.dropout, config.model.residual_dropout) == (0.02, 0.05)
    assert config == Config()


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    config = load_config(name, env={})
    path = tmp_path / "config.yaml"
    path.write_text(config_yaml(config), encoding="utf-8")
    assert load_config(path, env={}) == config


def test_flags_beat_environment_beats_file_beats_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 2\ntrain: {epochs: 2, batch_size: 2}\nmodel: {width: 2}\n")
    env = {"CIFAR_RESNET_TRAIN__EPOCHS": "3", "CIFAR_RESNET_MODEL__WIDTH": "3"}
    config = load_config(config_file=file, env=env, settings={"model.width": 4})
    assert (config.seed, config.train.batch_size) == (2, 2)
    assert config.train.epochs == 3
    assert config.model.width == 4


def test_data_variable_is_short_for_the_data_source() -> None:
    assert load_config(env={"CIFAR_RESNET_DATA": "shapes"}).data.source == "shapes"
    assert load_config(env={"CIFAR_RESNET_DATA": "shapes"}, data="x").data.source == "x"
    assert load_config(env={}, settings={"data.source": "y"}).data.source == "y"
    assert load_config(env={}, settings={"data.source": "y"}, data="x").data.source == "x"


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("CIFAR_RESNET_OPTIM__MAX_LRR", "CIFAR_RESNET_OPTIM__MAX_LR"),
        ("CIFAR_RESNET_MAX_LR", "CIFAR_RESNET_OPTIM__MAX_LR"),
        ("CIFAR_RESNET_train__epochs", "CIFAR_RESNET_TRAIN__EPOCHS"),
        ("cifar_resnet_train__epochs", "CIFAR_RESNET_TRAIN__EPOCHS"),
        ("cifar_resnet_home", "CIFAR_RESNET_HOME"),
        ("CIFAR_RESNET_TRAIN.EPOCHS", "CIFAR_RESNET_TRAIN__EPOCHS"),
        ("CIFAR_RESNET_" + "__" * 1500, ""),
    ],
)
def test_a_variable_that_only_looks_like_a_setting_is_named(variable: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(env={variable: "1", "CIFAR_RESNET_HOME": "x", "CIFAR_RESNETS": "1"})
    assert variable[:60] in str(caught.value)
    assert f"did you mean {nearest!r}" in str(caught.value) or not nearest
    assert len(str(caught.value)) < 300


def test_all_problems_stand_in_one_message_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(
            env={},
            overrides=["train.epochs=0", "schedule.pct_start=1.5", "model.widht=8", "seed=-1"],
        )
    message = str(caught.value)
    assert "train.epochs = 0" in message
    assert "schedule.pct_start = 1.5" in message
    assert "did you mean 'width'?" in message
    assert "seed = -1" in message
    assert "\n" not in message


@pytest.mark.parametrize("lr", ["0", "-1", "nan", ".inf", "fast", "true"])
def test_a_learning_rate_that_is_no_positive_number_is_refused(lr: str) -> None:
    with pytest.raises(ConfigError, match=r"optim\.max_lr"):
        load_config(env={}, overrides=[f"optim.max_lr={lr}"])


def test_a_range_test_for_muons_three_rates_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"optim\.max_lr = 'auto': auto is for adam; muon .* give a number"
    ):
        load_config("fast90", settings={"optim.max_lr": "auto"}, env={})


def test_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'baseline'"):
        load_config("basline", env={})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5", 5),
        ("off", "off"),
        ("yes", "yes"),
        ("true", True),
        ("null", None),
        ("1.5e+2", 150.0),
        ("-7", -7),
        ("010", "010"),
        ("1:30", "1:30"),
    ],
)
def test_yaml_scalars_mean_what_people_mean(text: str, value: object) -> None:
    parsed = parse_yaml(text, "test")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: 1\na: 2", "twice"),
        ("a: &x 1\nb: *x", "aliases"),
        ("a: &x 1", "anchors"),
        ("a: !!merge {b: 1}", "tags"),
        ("!!merge <<: {a: 1}", "tags"),
        ("a: !!python/object/apply:os.system ['true']", "python"),
        ("a: [1", "line"),
        ("x" * 300_000, "KiB"),
        ("width: {{ W }}", "plain word"),
        ("a: !!int ''", "tags"),
        ("a: !!bool x", "tags"),
        ("a: !!timestamp x", "tags"),
    ],
)
def test_dangerous_or_ambiguous_yaml_is_refused(text: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        parse_yaml(text, "test")


@pytest.mark.parametrize("text", ["train: {<<: {epochs: 3}}", "<<: {seed: 3}", "<<: [{seed: 3}]"])
def test_merge_keys_are_refused_as_settings_that_there_are_not(text: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting '.*<<'"):
        load_config(parse_yaml(text, "test"), env={})


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "list.yaml"
    file.write_text("- 1\n- 2\n")
    with pytest.raises(ConfigError, match="key: value"):
        load_config(config_file=file, env={})


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_survive_yaml(value: float) -> None:
    assert parse_yaml(dump_yaml({"x": value}), "test") == {"x": value}


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
sections = st.sampled_from([*Config.model_fields, "other"])


@given(st.dictionaries(sections, plain, max_size=4))
def test_any_plain_tree_gives_a_config_or_a_config_error(tree: dict[str, object]) -> None:
    # Anything but a ConfigError would escape, and fail the test.
    with contextlib.suppress(ConfigError):
        assert isinstance(build_config(tree), Config)
