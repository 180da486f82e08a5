"""YAML as people mean it: `1e-3` is a number, `off` is a word, a key stands once."""

from __future__ import annotations

import re
from typing import Any

import yaml

from cifar_cli.errors import ConfigError

MAX_BYTES = 256 * 1024
MAX_DIGITS = 400
"""Of a number: the largest float has 309. Python neither reads nor writes integers of thousands."""


# For merge and value there are none here: `<<` and `=` are keys like any other.
_OWN_RULES = (":bool", ":float", ":int", ":merge", ":value")


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without tags, anchors, merge keys, duplicate keys, and YAML 1.1 booleans and
    numbers."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML reads this class attribute
        first: [(tag, rx) for tag, rx in rules if not tag.endswith(_OWN_RULES)]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            raise yaml.YAMLError("anchors and aliases are not supported")
        if (tag := getattr(event, "tag", None)) is not None:
            raise yaml.YAMLError(f"tags are not supported: {tag:.60}")
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if node.tag.endswith((":int", ":float")) and len(node.value) > MAX_DIGITS:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number has {len(node.value):,} digits", node.start_mark
            )
        return super().construct_scalar(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a plain word", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf")
)
# Decimal only: YAML 1.1 reads 010 as eight and 1:30 as ninety.
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9]\d*)$"), list("-+0123456789")
)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str, origin: str) -> Any:
    """Parse one YAML document strictly.

    Args:
        text: The document, at most 256 KiB.
        origin: Where it comes from, named in errors.

    Raises:
        ConfigError: Too long, not YAML, a duplicate key, an alias, a tag, or a number of more than
            400 digits.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{origin}: more than {MAX_BYTES // 1024} KiB is not a configuration.")
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (
        yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError,
    ) as error:  # fmt: skip
        # PyYAML lets Python's own errors through, as of a date that is none.
        raise ConfigError(f"{origin}: not valid YAML: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error) or type(error).__name__
    where = f" (line {mark.line + 1})" if mark else ""
    return " ".join(str(problem).split()) + where


def dump_yaml(value: dict[str, Any]) -> str:
    """Write plain values as YAML that `parse_yaml` reads back equal."""
    text: str = yaml.dump(value, Dumper=_FloatDumper, sort_keys=False, default_flow_style=None)
    return text


class _FloatDumper(yaml.SafeDumper):
    """Writes floats so that every YAML reader, also a 1.1 one, sees a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    text = repr(value)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_FloatDumper.add_representer(float, _represent_float)
