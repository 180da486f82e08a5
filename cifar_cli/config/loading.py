"""From defaults, recipe, file, environment and flags to one checked `Config`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from cifar_cli.config.checking import SHOWN, build_config, complete_tree
from cifar_cli.config.data_schema import DataConfig
from cifar_cli.config.fitting import Facts, fitted_settings
from cifar_cli.config.layers import Layers
from cifar_cli.config.migration import is_complete
from cifar_cli.config.recipe_files import EXTENDS, FITTED, read_file, recipe_trees
from cifar_cli.config.schema import Config
from cifar_cli.config.settings import SETTINGS
from cifar_cli.config.starting import ReadPretrained, chosen_start, derived_settings
from cifar_cli.config.strict_yaml import dump_yaml, parse_yaml
from cifar_cli.errors import ConfigError, nearest_hint

__all__ = ["build_config", "config_yaml", "flat_settings", "load_config", "without_settings"]

ENV_PREFIX = "CIFAR_RESNET_"
# Variables of the same prefix that are not settings; CIFAR_RESNET_DATA is short for data.source.
PLAIN_VARIABLES = {"DATA", "HOME", "MIRROR"}
DEFAULT_RECIPE, OWN_RECIPE = "baseline", "own"

Survey = Callable[[DataConfig], Facts | None]
"""What pictures a source holds; None if they are CIFAR-10's or drawn, or cannot be found."""


class Chosen(NamedTuple):
    """A configuration, and what it was made of."""

    config: Config
    recipe: str | os.PathLike[str] | Mapping[str, Any]
    facts: Facts | None
    """Of the user's own pictures; None if the recipe has nothing to do with them."""
    why_not_own: str = ""
    """Why `own` was not taken for them; empty if it was."""


def load_config(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    config_file: str | os.PathLike[str] | None = None,
    overrides: Iterable[str] = (),
    settings: Mapping[str, Any] | None = None,
    data: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    survey: Survey | None = None,
    read_pretrained: ReadPretrained | None = None,
) -> Config:
    """Build the configuration: defaults < recipe < file < environment < overrides < settings.

    Where one of these names another class of a section (`model.name`, ...), settings of those
    before it that only the former class has are dropped. A setting that has no effect is refused.

    Args:
        recipe: Name of a built-in recipe, path of a YAML file, or a tree of settings. None:
            `baseline`; for pictures of the user's own, `own`.
        config_file: A YAML file on top of the recipe.
        overrides: `section.key=value` texts, values read as YAML.
        settings: Dotted keys to plain values (the command line's own flags); None is skipped.
        data: Short for the setting `data.source`.
        env: Environment variables; None reads `os.environ`.
        survey: Tells what pictures `data.source` holds, for recipes that are fitted to them. None:
            nothing is known of them.
        read_pretrained: Reads the network that `train.init` names, whose own settings stand between
            those of the recipe and all others. None: it is not read.

    Raises:
        ConfigError: Every wrong key and value at once, in one message.
        CheckpointError: The network that `train.init` names cannot be read.
    """
    return choose_config(
        recipe,
        config_file=config_file,
        overrides=overrides,
        settings={**(settings or {}), **({} if data is None else {"data.source": data})},
        env=env,
        survey=survey,
        read_pretrained=read_pretrained,
    ).config


def choose_config(
    recipe: str | os.PathLike[str] | Mapping[str, Any] | None,
    *,
    config_file: str | os.PathLike[str] | None = None,
    overrides: Iterable[str] = (),
    settings: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    survey: Survey | None = None,
    read_pretrained: ReadPretrained | None = None,
) -> Chosen:
    """As `load_config`, and which recipe was taken."""
    later: list[Mapping[str, Any]] = []
    if config_file is not None:
        tree = read_file(Path(config_file))
        if EXTENDS in tree:
            raise ConfigError(f"{config_file}: {EXTENDS!r} is for recipes; give it to --recipe.")
        later.append(tree)
    values = [(key, parse_yaml(text, f"--set {key}")) for key, text in map(_split, overrides)]
    given = [(key, value) for key, value in (settings or {}).items() if value is not None]
    for pairs in (_from_environment(os.environ if env is None else env), values, given):
        tree = {}
        for key, value in pairs:
            _set(tree, key, os.fspath(value) if isinstance(value, os.PathLike) else value)
        later.append(tree)
    facts = None
    if recipe is None and survey and not any(map(is_complete, later)):
        with suppress(ConfigError):  # of which `_with_recipe` tells, beside all others
            facts = survey(_images_of(later))
    if facts is None:
        return _with_recipe(
            DEFAULT_RECIPE if recipe is None else recipe, later, survey, read_pretrained
        )
    try:
        return _with_recipe(OWN_RECIPE, later, lambda _: facts, read_pretrained)
    except ConfigError as error:
        # Settings of the network or optimiser that the default recipe has, and `own` has not.
        chosen = _with_recipe(DEFAULT_RECIPE, later, survey, read_pretrained)
        return chosen._replace(facts=facts, why_not_own=error.what)


def _with_recipe(
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    later: Sequence[Mapping[str, Any]],
    survey: Survey | None,
    read_pretrained: ReadPretrained | None,
) -> Chosen:
    """A recipe, fitted to the images if it says so, with other settings on top."""
    facts = None
    trees: list[Mapping[str, Any]] = []
    fitted_after = None
    for tree in recipe_trees(recipe):
        is_fitted = tree.pop(FITTED, None)
        if not isinstance(is_fitted, bool | None):
            raise ConfigError(f"{FITTED}: expected true or false, not {is_fitted!r:.60}.")
        trees.append(tree)
        if is_fitted is not None:
            fitted_after = len(trees) if is_fitted else None
    start = chosen_start([*trees, *later])
    pretrained = read_pretrained(start) if start is not None and read_pretrained else None
    derived = derived_settings(pretrained, trees) if pretrained else {}
    if pretrained:
        later = [*later, {"train": {"init": pretrained.path}}]
    if fitted_after and survey:
        above = [*trees[fitted_after:], derived, *later]
        data = _images_of([*trees[:fitted_after], *above])
        facts = survey(data)
        own_size = data.image_size if _sets_image_size(above) else None
        if facts:
            trees.insert(fitted_after, fitted_settings(facts, own_size))
    return Chosen(_merged(trees, derived, later), recipe, facts)


def _merged(
    recipe: Iterable[Mapping[str, Any]],
    derived: Mapping[str, Any],
    later: Iterable[Mapping[str, Any]],
) -> Config:
    layers = Layers()
    for source in recipe:
        layers.add(source)
    layers.add(derived, is_chosen=False)
    for source in later:
        layers.add(source)
    return layers.config()


def _images_of(sources: Iterable[Mapping[str, Any]]) -> DataConfig:
    """What sources say of the images; their other settings may need a recipe's before them."""
    parts = [s if is_complete(s) else {"data": s["data"]} for s in sources if "data" in s]
    return _merged(parts, {}, ()).data


def _sets_image_size(sources: Iterable[Mapping[str, Any]]) -> bool:
    return any("image_size" in data for s in sources if isinstance(data := s.get("data"), dict))


def _split(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r}: write it as KEY=VALUE, such as train.epochs=5.")
    return key.strip(), value


def config_yaml(config: Config) -> str:
    """The complete configuration as YAML."""
    return dump_yaml(complete_tree(config))


def flat_settings(config: Config) -> dict[str, Any]:
    """All settings by dotted key, in order."""
    flat: dict[str, Any] = {}
    for key, value in config.model_dump(mode="json").items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": v for inner, v in value.items()})
        else:
            flat[key] = value
    return flat


def without_settings(env: Mapping[str, str]) -> dict[str, str]:
    """The variables of an environment that are no settings, for a process that is given these."""
    return {variable: text for variable, text in env.items() if not _is_setting(variable)}


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    if len(parents) > 1:
        raise ConfigError(f"Unknown setting {dotted!r:.90}: a path has a section and a name.")
    for parent in parents:
        inner = tree.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{dotted:.90}: {parent!r:.90} is a value, not a section.")
        tree = inner
    tree[leaf] = value


def _from_environment(env: Mapping[str, str]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    unknown: list[str] = []
    for name, text in sorted(env.items()):
        if text == "" or not _is_setting(name):
            continue
        key = name[len(ENV_PREFIX) :].lower().replace("__", ".")
        if name == ENV_PREFIX + "DATA":
            found.append(("data.source", text))
        elif key not in SETTINGS or name != variable(key):
            known = [*map(variable, SETTINGS), *(ENV_PREFIX + plain for plain in PLAIN_VARIABLES)]
            unknown.append(f"{name!r:.90}{nearest_hint(name.upper(), known)}")
        else:
            found.append((key, parse_yaml(text, name)))
    if unknown:
        more = [f"and {len(unknown) - SHOWN} more"] if len(unknown) > SHOWN else []
        raise ConfigError(
            f"Unknown environment variable {', '.join([*unknown[:SHOWN], *more])}. Unset it, or "
            f"write, for example, {variable('train.epochs')} for train.epochs."
        )
    return found


def variable(key: str) -> str:
    """The environment variable of a setting."""
    return ENV_PREFIX + key.upper().replace(".", "__")


def _is_setting(variable: str) -> bool:
    """Whether a variable is meant as a setting: it begins like one, in capitals or not."""
    if not variable.upper().startswith(ENV_PREFIX):
        return False
    return variable not in {ENV_PREFIX + name for name in PLAIN_VARIABLES - {"DATA"}}
