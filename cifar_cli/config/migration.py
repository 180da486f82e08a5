"""Configurations of earlier versions: which keys were renamed or dropped, and by which version.

A complete configuration (a run's config.yaml, the one in a checkpoint) holds the version of its
schema under `schema_version`. Without that key it has version 1, which wrote the settings of all
classes of a section, also those without effect. What a user writes needs no version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cifar_cli.config.schema import Config
from cifar_cli.config.settings import SECTIONS, TAGS, chosen_variant, drop_other_variants
from cifar_cli.errors import ConfigError

VERSION = 3
VERSION_KEY = "schema_version"


class Dropped(NamedTuple):
    """A setting that is no longer there."""

    off: Any
    """The value at which it had no effect."""
    why: str


DROPPED: dict[int, dict[str, Dropped]] = {
    2: {
        "model.strided": Dropped(0, "stride 2 in place of pooling was not worth it"),
        "model.eval_size": Dropped(
            None, "a network classifies at the size of its last training step"
        ),
        "train.lookahead": Dropped(0, "it did not help"),
        "train.average_last": Dropped(0, "it did not help"),
    }
}
"""By the version that dropped them."""
RENAMED: dict[int, dict[str, str]] = {}
"""Old and new dotted keys, by the version that renamed them."""
ADDED: dict[int, dict[str, Any]] = {3: {"data.resize": "squash", "data.as_stored": True}}
"""By the version that added them: keys whose default is not what earlier versions did, and the
value that is. A complete configuration of an earlier version gets that value."""
ALL_DROPPED = {key: dropped for keys in DROPPED.values() for key, dropped in keys.items()}


def is_complete(tree: Mapping[str, Any]) -> bool:
    """Whether a tree of settings is one that the program wrote: it has what nobody writes out."""
    rare = {"data": {"dir", "limit_train", "limit_val"}, "runtime": {"threads"}}
    return set(Config.model_fields) <= set(tree) and all(
        isinstance(tree[section], dict) and names <= set(tree[section])
        for section, names in rare.items()
    )


def upgraded(tree: Mapping[str, Any], *, complete: bool) -> dict[str, Any]:
    """A tree of settings of any version with the keys of this one, but for those dropped.

    Args:
        tree: Settings, not changed.
        complete: Whether the program wrote it; of version 1, settings without effect are then left
            out.

    Raises:
        ConfigError: It is of a newer version, or its version is not a number.
    """
    new = {key: dict(value) if isinstance(value, dict) else value for key, value in tree.items()}
    version = new.pop(VERSION_KEY, VERSION if complete and not _is_first(new) else 1)
    if type(version) is not int or not 1 <= version <= VERSION:
        raise ConfigError(
            f"{VERSION_KEY} = {version!r:.60}: this program knows the versions 1 to {VERSION}. Use "
            "the newest version of cifar-resnet."
        )
    for later in range(version + 1, VERSION + 1):
        for old_key, new_key in RENAMED.get(later, {}).items():
            _rename(new, old_key, new_key)
        for key, value in ADDED.get(later, {}).items() if complete else ():
            section, _, name = key.partition(".")
            if isinstance(inner := new.get(section), dict):
                inner.setdefault(name, value)
    if complete and version == 1:
        _leave_out_what_has_no_effect(new)
    return new


def _is_first(tree: Mapping[str, Any]) -> bool:
    """Whether a complete configuration is of version 1: it has what this one would leave out.

    Others without a version are plain values that somebody took from a `Config`.
    """
    model = tree.get("model")
    return not isinstance(model, dict) or model.get("name") != "speed_resnet" or "width" in model


def take_dropped(tree: dict[str, Any]) -> dict[str, Any]:
    """Take the settings that are no longer there out of a tree, and return those that were used."""
    used = {}
    for key, dropped in ALL_DROPPED.items():
        section, _, name = key.partition(".")
        if isinstance(inner := tree.get(section), dict) and name in inner:
            value = inner.pop(name)
            if value != dropped.off or isinstance(value, bool):
                used[key] = value
    return used


def used_dropped(dropped: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Of what `take_dropped` returned, that which `config` does not do all the same."""
    return {
        key: value
        for key, value in dropped.items()
        if key != "model.eval_size" or value != config.eval_size or isinstance(value, bool)
    }


def no_longer(dropped: Mapping[str, Any]) -> list[str]:
    """What to tell of settings that are no longer there, by their keys."""
    return [
        f"{key} = {value!r:.60} is no longer a setting: {ALL_DROPPED[key].why}"
        for key, value in dropped.items()
    ]


def _rename(tree: dict[str, Any], old_key: str, new_key: str) -> None:
    section, _, name = old_key.rpartition(".")
    inner = tree.get(section) if section else tree
    if isinstance(inner, dict) and name in inner:
        value = inner.pop(name)
        section, _, name = new_key.rpartition(".")
        target = tree.setdefault(section, {}) if section else tree
        if isinstance(target, dict):
            target.setdefault(name, value)


def _leave_out_what_has_no_effect(tree: dict[str, Any]) -> None:
    """In place, in a complete configuration of version 1."""
    sections = {s: tree[s] if isinstance(tree.get(s), dict) else {} for s in SECTIONS}
    names = {section: chosen_variant(section, sections[section]) for section in TAGS}
    # Images were classified at their own size, but for one network, which could be given another.
    size = sections["model"].pop("eval_size", None)
    if size is None or names["model"] != "speed_resnet":
        size = sections["data"].get("image_size", Config().data.image_size)
    if names["model"] != "speed_resnet":
        sections["model"].pop("strided", None)
    sections["model"]["eval_size"] = size
    for section, name in names.items():
        drop_other_variants(sections[section], section, name)
    if names["augment"] == "tensor":
        sections["data"].pop("workers", None)
