"""Whatever settings and files hold: one message and a documented exit code, never a traceback."""

from __future__ import annotations

import importlib.util
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from conftest import Answer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cifar_cli.config import Config
from cifar_cli.config.strict_yaml import dump_yaml

ROOT = Path(__file__).parents[2]
# One folder serves all examples of a test: each writes its input anew.
in_one_folder = settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def load_fuzz() -> ModuleType:
    """`tests/fuzz.py`, which runs commands and damages files."""
    spec = importlib.util.spec_from_file_location("fuzz", ROOT / "tests" / "fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module


fuzz = load_fuzz()
KNOWN = [
    *Config.model_fields,
    *(
        f"{section}.{key}"
        for section, field in Config.model_fields.items()
        if hasattr(field.default, "model_fields_set")
        for key in type(field.default).model_fields
    ),
]
# Networks and images of any size are right, but take gigabytes: see `fuzz.SMALL`.
numbers = st.integers(-5, 9) | st.just(2**40)
plain = st.recursive(
    st.none() | st.booleans() | numbers | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
keys = st.sampled_from(KNOWN) | st.text(max_size=12)
damage_seeds = st.integers(0, 2**32).map(random.Random)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A small run, and the images that it was trained on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CIFAR_RESNET_HOME", str(tmp_path_factory.mktemp("home")))
        return fuzz.make_material(tmp_path_factory.mktemp("material"))


def check(*arguments: object) -> None:
    outcome = fuzz.attempt(*arguments)
    assert not outcome.fault, (outcome, arguments)


@in_one_folder
@given(st.dictionaries(keys, plain, max_size=4))
def test_any_settings_in_a_file(in_tmp: Path, tree: dict[str, object]) -> None:
    nested: dict[str, object] = {}
    for key, value in tree.items():
        section, dot, name = key.partition(".")
        inner = nested.setdefault(section, {})
        if dot and isinstance(inner, dict):
            inner[name] = value
        else:
            nested[section] = value
    Path("c.yaml").write_text(dump_yaml(nested))
    check("summary", "--config", "c.yaml", "--depth", 1, "--json")


@in_one_folder
@given(st.lists(st.tuples(keys, plain), max_size=3))
def test_any_settings_by_flag(in_tmp: Path, pairs: list[tuple[str, object]]) -> None:
    texts = [f"{key}={dump_yaml({'x': value})[3:].strip()}" for key, value in pairs]
    check("summary", *(f"--set={text}" for text in texts), "--depth", 1, "--json")


@in_one_folder
@given(st.binary(max_size=200))
def test_any_bytes_as_a_recipe(in_tmp: Path, data: bytes) -> None:
    Path("r.yaml").write_bytes(data)
    check("train", "--recipe", "r.yaml", *fuzz.TINY, "--max-lr", 0, "--run-dir", "r")


@in_one_folder
@given(st.text(max_size=30))
def test_any_word_as_an_argument(in_tmp: Path, word: str) -> None:
    for command in (["recipes", "show", word], ["summary", "--set", word], [word]):
        check(*command)


@in_one_folder
@given(damage_seeds)
def test_a_damaged_configuration(in_tmp: Path, material: object, rng: random.Random) -> None:
    data = (material.run / "config.yaml").read_bytes()  # type: ignore[attr-defined]
    Path("c.yaml").write_bytes(fuzz.damaged(data, rng))
    check("summary", "--config", "c.yaml", "--depth", 1, "--json")


@in_one_folder
@given(damage_seeds)
def test_a_damaged_checkpoint(in_tmp: Path, material: object, rng: random.Random) -> None:
    data = (material.run / "checkpoints" / "best.pt").read_bytes()  # type: ignore[attr-defined]
    Path("c.pt").write_bytes(fuzz.damaged(data, rng))
    outcome = fuzz.attempt("evaluate", "--checkpoint", "c.pt", "--quiet", "--limit-val", 4)
    assert not outcome.fault, outcome
    assert outcome.code == 4


@in_one_folder
@given(damage_seeds)
def test_a_damaged_image(in_tmp: Path, material: object, rng: random.Random) -> None:
    shutil.rmtree("images", ignore_errors=True)
    shutil.copytree(material.images, "images")  # type: ignore[attr-defined]
    fuzz.damage(rng, [p for p in Path("images").rglob("*.*") if p.is_file()])
    best = material.run / "checkpoints" / "best.pt"  # type: ignore[attr-defined]
    outcome = fuzz.attempt("evaluate", "--checkpoint", best, "--data", "images", "--quiet")
    assert not outcome.fault, outcome
    assert outcome.code in (0, 3)


def test_a_path_that_no_file_can_have_is_refused(cli: Callable[..., Answer]) -> None:
    for word in ("a\0b", "\udcff", "a/" * 2000):
        answer = cli("train", *fuzz.TINY, "--run-dir", word)
        assert answer.code == 2
        assert answer.err.startswith("Error: The argument ")
    for word in ("x" * 300, '"a\\0b"', "~no-such-user/x"):
        answer = cli("summary", "--set", f"data.source={word}")
        assert answer.code == 2, answer.err
        assert "ath" in answer.err


def test_a_home_that_nobody_has_is_refused(
    cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIFAR_RESNET_HOME", "~no-such-user/x")
    answer = cli("train", *fuzz.TINY)
    assert answer.code == 2
    assert "CIFAR_RESNET_HOME" in answer.err
