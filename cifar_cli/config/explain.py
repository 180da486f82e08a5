"""What each setting means, as the schema says it: its default, its values, and who reads it."""

from __future__ import annotations

import ast
import functools
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from itertools import pairwise
from typing import Any

from cifar_cli.config import data_schema, schema
from cifar_cli.config.data_schema import Section
from cifar_cli.config.migration import ALL_DROPPED
from cifar_cli.config.schema import Config
from cifar_cli.config.settings import SECTIONS, SETTINGS, TAGS, variants
from cifar_cli.errors import ConfigError, nearest_hint

READERS = resources.files("cifar_cli.config") / "readers.json"
"""Modules that read each setting, by key; doc/generate_settings.py writes it from the source."""


@dataclass(frozen=True)
class Explanation:
    """A setting, in those classes of its section in which it is the same."""

    key: str
    """Dotted, such as `model.width`."""
    meaning: str
    values: str
    """Which values it takes, in words."""
    default: Any
    belongs_to: tuple[str, ...]
    """Names of the classes; none if its section has a single class, or they are its values."""
    read_by: tuple[str, ...]
    """Modules of the package."""


def explain(key: str) -> list[Explanation]:
    """Explain a setting, or all settings of a section.

    Raises:
        ConfigError: There is no such setting; the nearest is named.
    """
    if key in ALL_DROPPED:
        raise ConfigError(f"{key} is no longer a setting: {ALL_DROPPED[key].why}.")
    known = [*SETTINGS, *SECTIONS]
    keys = [k for k in SETTINGS if key in (k, k.partition(".")[0])]
    if not keys:
        last = {name.rpartition(".")[2]: name for name in known}
        hint = nearest_hint(key, known) or nearest_hint(last.get(key, ""), known)
        raise ConfigError(f"There is no setting {key!r:.90}{hint}. See: recipes explain model.")
    readers = json.loads(READERS.read_text(encoding="utf-8"))
    return [entry for k in keys for entry in _entries(k, tuple(readers.get(k, ())))]


def section_meaning(section: str) -> str:
    """What the settings of a section are about."""
    if section in TAGS:
        return " ".join(f"`{name}`: {cls.__doc__}" for name, cls in variants(section).items())
    return str(type(Config.model_fields[section].default).__doc__)


def _entries(key: str, readers: tuple[str, ...]) -> list[Explanation]:
    section, _, name = key.rpartition(".")
    if section and name == TAGS.get(section):
        default = getattr(Config.model_fields[section].default, name)
        values = " or ".join(f"`{variant}`" for variant in variants(section))
        return [Explanation(key, section_meaning(section), values, default, (), readers)]
    classes: Mapping[str, type[Section]] = variants(section) if section else {"": Config}
    found: dict[tuple[str, str, str], list[str]] = {}
    for variant, cls in classes.items():
        if name not in cls.model_fields:
            continue
        field = cls.model_fields[name]
        values = _in_words(cls.model_json_schema()["properties"][name])
        default = json.dumps(field.default)
        same = (_meaning(cls, name), values, default)
        found.setdefault(same, []).append(variant)
    return [
        Explanation(key, meaning, values, json.loads(default), tuple(filter(None, names)), readers)
        for (meaning, values, default), names in found.items()
    ]


def _meaning(cls: type[Section], name: str) -> str:
    """The docstring of a setting as one line; of a class or the first of its bases."""
    texts = (_docstrings().get((base.__name__, name)) for base in cls.__mro__)
    return " ".join(next(filter(None, texts)).split())


@functools.cache
def _docstrings() -> dict[tuple[str, str], str]:
    """The texts below the fields of the schema's classes, by names of class and field."""
    found = {}
    modules = (data_schema, schema)
    statements = [s for module in modules for s in ast.parse(inspect.getsource(module)).body]
    for cls in (cls for cls in statements if isinstance(cls, ast.ClassDef)):
        for field, below in pairwise(cls.body):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[cls.name, name] = text
    return found


def _in_words(schema: dict[str, Any]) -> str:
    """A JSON schema of one value as people say it."""
    if "anyOf" in schema:
        return " or ".join(map(_in_words, schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "array":
        return _list_in_words(schema)
    if kind in ("integer", "number"):
        words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most",
                 "exclusiveMaximum": "below"}  # fmt: skip
        limits = [f"{word} {schema[b]:,.12g}" for b, word in words.items() if b in schema]
        return f"{'a whole number' if kind == 'integer' else 'a number'} {' and '.join(limits)}"
    return {"boolean": "`true` or `false`", "null": "`null`"}.get(str(kind), "text")


def _list_in_words(schema: dict[str, Any]) -> str:
    if "prefixItems" not in schema:
        return f"a list of at most {schema['maxItems']}: {_in_words(schema['items'])}"
    items = list(map(_in_words, schema["prefixItems"]))
    if len(set(items)) == 1:
        return f"a list of {len(items)}, each {items[0]}"
    return f"[{', '.join(items)}]"
