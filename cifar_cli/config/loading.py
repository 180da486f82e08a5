"""From defaults, recipe, file, environment and flags to one checked `Config`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cifar_cli.config.checking import SHOWN, build_config, complete_tree
from cifar_cli.config.layers import Layers
from cifar_cli.config.recipe_files import EXTENDS, read_file, recipe_trees
from cifar_cli.config.schema import Config
from cifar_cli.config.settings import SETTINGS
from cifar_cli.config.strict_yaml import dump_yaml, parse_yaml
from cifar_cli.errors import ConfigError, nearest_hint

__all__ = ["build_config", "config_yaml", "flat_settings", "load_config", "without_settings"]

ENV_PREFIX = "CIFAR_RESNET_"
# Variables of the same prefix that are not settings; CIFAR_RESNET_DATA is short for data.source.
PLAIN_VARIABLES = {"DATA", "HOME", "MIRROR"}


def load_config(
    recipe: str | os.PathLike[str] | Mapping[str, Any] = "baseline",
    *,
    config_file: str | os.PathLike[str] | None = None,
    overrides: Iterable[str] = (),
    settings: Mapping[str, Any] | None = None,
    data: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> Config:
    """Build the configuration: defaults < recipe < file < environment < overrides < settings.

    Where one of these names another class of a section (`model.name`, ...), settings of those
    before it that only the former class has are dropped. A setting that has no effect is refused.

    Args:
        recipe: Name of a built-in recipe, path of a YAML file, or a tree of settings.
        config_file: A YAML file on top of the recipe.
        overrides: `section.key=value` texts, values read as YAML.
        settings: Dotted keys to plain values (the command line's own flags); None is skipped.
        data: Short for the setting `data.source`.
        env: Environment variables; None reads `os.environ`.

    Raises:
        ConfigError: Every wrong key and value at once, in one message.
    """
    layers = Layers()
    for tree in recipe_trees(recipe):
        layers.add(tree)
    if config_file is not None:
        tree = read_file(Path(config_file))
        if EXTENDS in tree:
            raise ConfigError(f"{config_file}: {EXTENDS!r} is for recipes; give it to --recipe.")
        layers.add(tree)
    tree = {}
    for key, value in _from_environment(os.environ if env is None else env):
        _set(tree, key, value)
    layers.add(tree)
    tree = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {text!r}: write it as KEY=VALUE, such as train.epochs=5.")
        _set(tree, key.strip(), parse_yaml(value, f"--set {key.strip()}"))
    layers.add(tree)
    tree = {}
    for key, value in [*(settings or {}).items(), ("data.source", data)]:
        if value is not None:
            _set(tree, key, os.fspath(value) if isinstance(value, os.PathLike) else value)
    layers.add(tree)
    return layers.config()


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
