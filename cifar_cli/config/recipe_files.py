"""Recipes: YAML files of settings, built in or the user's own, which may extend one another."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from cifar_cli.config.strict_yaml import MAX_BYTES, parse_yaml
from cifar_cli.errors import ConfigError, nearest_hint

RECIPES = resources.files("cifar_cli.config") / "recipes"
EXTENDS = "extends"
FITTED = "fit_to_images"
"""Key of recipes whose batch size, epochs and image size follow from the images."""
MAX_CHAIN = 10
"""So many recipes may extend one another."""


def recipe_names() -> list[str]:
    """Names of the built-in recipes, sorted."""
    return sorted(p.name.removesuffix(".yaml") for p in RECIPES.iterdir() if p.name[-5:] == ".yaml")


def recipe_text(name: str) -> str:
    """The YAML text of a built-in recipe, its header comment included.

    Raises:
        ConfigError: No recipe has that name.
    """
    if name not in recipe_names():
        raise ConfigError(
            f"No recipe is named {name!r}{nearest_hint(name, recipe_names())}. "
            f"Known: {', '.join(recipe_names())}; or give the path of a YAML file."
        )
    return (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")


def recipe_trees(recipe: str | os.PathLike[str] | Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings of a recipe and of those that it extends, the most basic one first.

    Args:
        recipe: Name of a built-in recipe, path of a YAML file, or a tree of settings.

    Raises:
        ConfigError: A recipe does not exist or is no YAML, or they extend one another in a circle.
    """
    trees: list[dict[str, Any]] = []
    seen: list[str] = []
    name, folder = recipe, Path()
    while True:
        if isinstance(name, Mapping):
            tree = dict(name)
        else:
            tree, origin, folder = _read(os.fspath(name), folder)
            if origin in seen or len(seen) == MAX_CHAIN:
                problem = "is a circle" if origin in seen else f"is longer than {MAX_CHAIN}"
                chain = " → ".join([*seen, origin])
                raise ConfigError(f"The chain of recipes {problem}: {chain:.300}.")
            seen.append(origin)
        parent = tree.pop(EXTENDS, None)
        trees.insert(0, tree)
        if parent is None:
            return trees
        if not isinstance(parent, str):
            raise ConfigError(f"{EXTENDS}: expected a recipe's name or a path, not {parent!r:.60}.")
        name = parent


@functools.cache
def _built_in(name: str) -> Any:
    """A built-in recipe's settings, not to be changed. Most are read for others too."""
    return parse_yaml(recipe_text(name), f"recipe {name!r}")


def _read(name: str, folder: Path) -> tuple[dict[str, Any], str, Path]:
    """A recipe's settings, what to call it, and where paths in it start."""
    if name in recipe_names():
        return mapping(_built_in(name), name), name, folder
    path = folder / Path(name).expanduser()
    if name.endswith((".yaml", ".yml")) or os.sep in name or path.is_file():
        return read_file(path), str(path.resolve()), path.parent
    recipe_text(name)  # raises, and names the nearest recipe
    raise AssertionError


def read_file(path: Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    try:
        with path.expanduser().open("rb") as file:  # which may be a pipe, or have no end
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{path}: more than {MAX_BYTES // 1024} KiB is not a configuration.")
        text = data.decode("utf-8")
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"Cannot read the configuration file {path}: {reason}.") from error
    return mapping(parse_yaml(text, str(path)), str(path))


def mapping(value: Any, origin: str) -> dict[str, Any]:
    """A YAML document as settings; an empty one is none.

    Raises:
        ConfigError: It is something else.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{origin}: expected settings as `key: value`, not {value!r:.60}.")
    return {str(key): item for key, item in value.items()}
