"""Settings from several sources, each on top of those before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cifar_cli.config import migration
from cifar_cli.config.checking import build_complete, build_config, no_effect, wrong_settings
from cifar_cli.config.schema import Config
from cifar_cli.config.settings import (
    DEPENDENCES,
    SECTIONS,
    TAGS,
    Dependence,
    chosen_variant,
    drop_other_variants,
)
from cifar_cli.errors import ConfigError


class Layers:
    """Sources of settings (recipe, file, environment, ...), added in their order."""

    def __init__(self) -> None:
        self._tree: dict[str, Any] = {}
        self._count = 0
        self._set_by: dict[str, int] = {}
        """Number of the source that set a key last; of complete ones none, whose keys nobody chose
        one by one."""

    def add(self, source: Mapping[str, Any], *, is_chosen: bool = True) -> None:
        """Put the settings of a source on top.

        Args:
            source: Settings.
            is_chosen: Whether somebody chose them, so that one without effect is refused.

        Raises:
            ConfigError: It is a complete configuration and wrong by itself, or one of another
                version; or a value stands where a section was.
        """
        self._count += 1
        complete = migration.is_complete(source)
        if complete:
            config, dropped = build_complete(source)
            if dropped:
                raise wrong_settings(migration.no_longer(dropped))
            tree = config.model_dump(mode="json")
        else:
            tree = migration.upgraded(source, complete=False)
        for section in TAGS:
            self._change_variant(section, tree)
        for key, value in tree.items():
            below = self._tree.get(key)
            if isinstance(value, dict) and below is not None and not isinstance(below, dict):
                raise ConfigError(f"{key:.90} = {below!r:.60}: it is a section, not a value.")
            is_section = key in SECTIONS and isinstance(value, dict)
            self._tree[key] = {**(below or {}), **value} if is_section else value
            for inner in value if is_section else ():
                self._set_by[f"{key}.{inner}"] = -1 if complete or not is_chosen else self._count

    def config(self) -> Config:
        """The configuration that they come to.

        Raises:
            ConfigError: Settings are wrong, are no longer there, or have no effect.
        """
        tree = dict(self._tree)
        dropped = migration.take_dropped(tree)
        config = build_config(tree)
        problems = migration.no_longer(migration.used_dropped(dropped, config))
        if problems := problems or [p for d in DEPENDENCES if (p := self._problem(d, config))]:
            raise wrong_settings(problems)
        return config

    def _change_variant(self, section: str, tree: Mapping[str, Any]) -> None:
        """Where a source names another class of a section, drop what only the former one has."""
        below, new = self._tree.get(section, {}), tree.get(section)
        if not isinstance(below, dict) or not isinstance(new, dict) or TAGS[section] not in new:
            return
        variant = chosen_variant(section, new)
        if variant != chosen_variant(section, below):
            drop_other_variants(below, section, variant)
            if variant == "tensor" and isinstance(data := self._tree.get("data"), dict):
                data.pop("workers", None)

    def _problem(self, dependence: Dependence, config: Config) -> str:
        """Why a setting that somebody chose has no effect; empty if it has one.

        Whoever turns something off in the same source, or later, may leave its settings there.
        """
        key, switch, works = dependence
        value, state = (_value(config, name) for name in (key, switch))
        chosen, switched = self._set_by.get(key, -1), self._set_by.get(switch, -1)
        is_word = isinstance(state, str)
        if chosen < 0 or not value or works(state):
            return ""
        if switched > chosen or (switched == chosen and not is_word):
            return ""
        return no_effect(key, switch, "null" if state is None else state)


def _value(config: Config, key: str) -> Any:
    """The value of a setting; None where the section's class does not have it."""
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name, None)
