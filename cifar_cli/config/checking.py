"""From a tree of plain values to a checked `Config`, with problems that a user can act on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from cifar_cli.config import migration
from cifar_cli.config.data_schema import LARGEST, SMALLEST
from cifar_cli.config.schema import Config
from cifar_cli.config.settings import SECTIONS, TAGS, chosen_variant, owners, variants
from cifar_cli.errors import ConfigError, nearest_hint

SHOWN = 20
"""So many problems are listed in one message."""


def build_config(tree: Mapping[str, Any]) -> Config:
    """Check a tree of plain values and return the `Config`; all problems in one `ConfigError`."""
    try:
        return Config.model_validate(_prepared(tree))
    except ValidationError as error:
        problems = [_describe(problem, tree) for problem in _without_alternatives(error.errors())]
    except RecursionError:
        problems = ["a value is nested too deeply"]
    raise wrong_settings(problems)


def wrong_settings(problems: list[str]) -> ConfigError:
    """One error for all of them."""
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return ConfigError("Wrong settings: " + "; ".join([*problems[:SHOWN], *more]) + ".")


def complete_tree(config: Config) -> dict[str, Any]:
    """A configuration as plain values, with the version of its schema, to be kept in a file."""
    return {migration.VERSION_KEY: migration.VERSION, **config.model_dump(mode="json")}


def build_complete(tree: Mapping[str, Any]) -> tuple[Config, dict[str, Any]]:
    """Check what `complete_tree` gave in this or an earlier version of the program.

    Returns:
        The configuration, and by key what the run used and is no longer a setting.

    Raises:
        ConfigError: As `build_config`; or it is of a newer version.
    """
    tree = migration.upgraded(tree, complete=True)
    dropped = migration.take_dropped(tree)
    config = build_config(tree)
    used = migration.used_dropped(dropped, config)
    size = used.get("model.eval_size", SMALLEST)
    if type(size) is not int or not SMALLEST <= size <= LARGEST:
        raise wrong_settings([f"model.eval_size = {size!r:.60} is not a size of {SMALLEST} to "
                              f"{LARGEST} pixels"])  # fmt: skip
    return config, used


def _prepared(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree, with the names of sections' classes, and nothing that pydantic would convert."""
    plain: dict[str, Any] = _without_coercion(dict(tree))
    for section, tag in TAGS.items():
        if isinstance(inner := plain.get(section), dict):
            inner.setdefault(tag, chosen_variant(section, inner))
    return plain


def _without_coercion(value: Any) -> Any:
    """Refuse what pydantic would silently convert: booleans as numbers, digits as texts."""
    if isinstance(value, dict):
        return {str(k): _without_coercion(v) for k, v in value.items()}
    return repr(value).lower() if isinstance(value, bool) else value


def _is_type(part: int | str) -> bool:
    """Whether a part of a location is not a name but a type, one of several that a value may be."""
    return part in ("float", "bool") or str(part).startswith(("literal[", "tuple["))


def _without_alternatives(problems: Iterable[Any]) -> list[Any]:
    """Without that a value is not `auto` either, if what else is wrong with it is there too."""
    problems = list(problems)
    others = [p["loc"] for p in problems if p["type"] != "literal_error"]
    return [
        problem
        for problem in problems
        if problem["type"] != "literal_error"
        or isinstance(problem["input"], str)
        or not any(loc[:2] == problem["loc"][:2] for loc in others)
    ]


def _describe(problem: Any, tree: Mapping[str, Any]) -> str:
    location = [part for part in problem["loc"] if not str(part).startswith("constrained")]
    section = str(location[0]) if location else ""
    variant = ""
    if section in TAGS and len(location) > 1:
        variant = str(location.pop(1))
    dotted = ".".join(str(part) for part in location if not _is_type(part))
    if problem["type"] == "extra_forbidden":
        return _unknown(section, variant, [str(part) for part in location])
    if problem["type"] == "union_tag_invalid":
        tag, inner = TAGS[section], problem["input"]
        known = " or ".join(map(repr, variants(section)))
        return f"{section}.{tag} = {inner[tag]!r:.60}: input should be {known}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not dotted:
        return message
    return f"{dotted:.90} = {problem['input']!r:.60}: {message[0].lower()}{message[1:]}"


def _unknown(section: str, variant: str, location: list[str]) -> str:
    dotted, name = ".".join(location), location[-1]
    if len(location) != 2:
        return f"unknown setting {dotted!r:.90}{nearest_hint(name, Config.model_fields)}"
    if variant and (others := owners(section, name)):
        return no_effect(dotted, f"{section}.{TAGS[section]}", variant, others)
    fields: Iterable[str] = variants(section)[variant].model_fields if section in SECTIONS else ()
    return f"unknown setting {dotted!r:.90}{nearest_hint(name, fields)}"


def no_effect(key: str, switch: str, value: object, others: Iterable[str] = ()) -> str:
    """That a setting has no effect at a value of another one, and to which classes it belongs."""
    belongs = f"; it belongs to {' and '.join(others)}" if others else ""
    return f"{key} has no effect with {switch} {value}{belongs}"
