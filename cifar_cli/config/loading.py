"""From defaults, recipe, file, environment and flags to one checked `Config`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cifar_cli.config.schema import Config
from cifar_cli.config.strict_yaml import MAX_BYTES, dump_yaml, parse_yaml
from cifar_cli.errors import ConfigError, nearest_hint

ENV_PREFIX = "CIFAR_RESNET_"
# Variables of the same prefix that are not settings; CIFAR_RESNET_DATA is short for data.source.
PLAIN_VARIABLES = {"DATA", "HOME", "MIRROR"}
SHOWN = 20
"""So many problems are listed in one message."""
RECIPES = resources.files("cifar_cli.config") / "recipes"


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
    tree: dict[str, Any] = {}
    name = "" if isinstance(recipe, Mapping) else os.fspath(recipe)
    if isinstance(recipe, Mapping):
        _merge(tree, dict(recipe))
    elif name in recipe_names():
        _merge(tree, _mapping(parse_yaml(recipe_text(name), f"recipe {name!r}"), name))
    elif name.endswith((".yaml", ".yml")) or os.sep in name or Path(name).is_file():
        _merge(tree, _read_file(Path(name)))
    else:
        recipe_text(name)  # raises, and names the nearest recipe
    if config_file is not None:
        _merge(tree, _read_file(Path(config_file)))
    for key, value in _from_environment(os.environ if env is None else env):
        _set(tree, key, value)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {text!r}: write it as KEY=VALUE, such as train.epochs=5.")
        _set(tree, key.strip(), parse_yaml(value, f"--set {key.strip()}"))
    for key, value in [*(settings or {}).items(), ("data.source", data)]:
        if value is not None:
            _set(tree, key, os.fspath(value) if isinstance(value, os.PathLike) else value)
    return build_config(tree)


def build_config(tree: Mapping[str, Any]) -> Config:
    """Check a tree of plain values and return the `Config`; all problems in one `ConfigError`."""
    try:
        return Config.model_validate(_without_coercion(dict(tree)))
    except ValidationError as error:
        problems = [_describe(problem) for problem in error.errors()]
    except RecursionError:
        problems = ["a value is nested too deeply"]
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    raise ConfigError("Wrong settings: " + "; ".join([*problems[:SHOWN], *more]) + ".")


def config_yaml(config: Config) -> str:
    """The fully resolved configuration as YAML."""
    return dump_yaml(config.model_dump(mode="json"))


def read_config(path: Path) -> Config:
    """Read a fully resolved `config.yaml` of a run."""
    return build_config(_read_file(path))


def flat_settings(config: Config) -> dict[str, Any]:
    """All settings by dotted key, in order."""
    flat: dict[str, Any] = {}
    for key, value in config.model_dump(mode="json").items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": v for inner, v in value.items()})
        else:
            flat[key] = value
    return flat


SETTINGS = tuple(flat_settings(Config()))
"""Every setting by its dotted key."""


def without_settings(env: Mapping[str, str]) -> dict[str, str]:
    """The variables of an environment that are no settings, for a process that is given these."""
    return {variable: text for variable, text in env.items() if not _is_setting(variable)}


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.expanduser().open("rb") as file:  # which may be a pipe, or have no end
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{path}: more than {MAX_BYTES // 1024} KiB is not a configuration.")
        text = data.decode("utf-8")
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"Cannot read the configuration file {path}: {reason}.") from error
    return _mapping(parse_yaml(text, str(path)), str(path))


def _mapping(value: Any, origin: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{origin}: expected settings as `key: value`, not {value!r:.60}.")
    return {str(key): item for key, item in value.items()}


def _merge(tree: dict[str, Any], update: Mapping[str, Any]) -> None:
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


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
    for variable, text in sorted(env.items()):
        if text == "" or not _is_setting(variable):
            continue
        key = variable[len(ENV_PREFIX) :].lower().replace("__", ".")
        if variable == ENV_PREFIX + "DATA":
            found.append(("data.source", text))
        elif key not in SETTINGS or variable != _variable(key):
            known = [*map(_variable, SETTINGS), *(ENV_PREFIX + name for name in PLAIN_VARIABLES)]
            unknown.append(f"{variable!r:.90}{nearest_hint(variable.upper(), known)}")
        else:
            found.append((key, parse_yaml(text, variable)))
    if unknown:
        more = [f"and {len(unknown) - SHOWN} more"] if len(unknown) > SHOWN else []
        raise ConfigError(
            f"Unknown environment variable {', '.join([*unknown[:SHOWN], *more])}. Unset it, or "
            f"write, for example, {_variable('train.epochs')} for train.epochs."
        )
    return found


def _variable(key: str) -> str:
    """The environment variable of a setting."""
    return ENV_PREFIX + key.upper().replace(".", "__")


def _is_setting(variable: str) -> bool:
    """Whether a variable is meant as a setting: it begins like one, in capitals or not."""
    if not variable.upper().startswith(ENV_PREFIX):
        return False
    return variable not in {ENV_PREFIX + name for name in PLAIN_VARIABLES - {"DATA"}}


def _without_coercion(value: Any) -> Any:
    """Refuse what pydantic would silently convert: booleans as numbers, digits as texts."""
    if isinstance(value, dict):
        return {str(k): _without_coercion(v) for k, v in value.items()}
    return repr(value).lower() if isinstance(value, bool) else value


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = Config
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        if field is None or not isinstance(field.default, BaseModel):
            return []
        model = type(field.default)
    return list(model.model_fields)


def _describe(problem: Any) -> str:
    location = tuple(part for part in problem["loc"] if not str(part).startswith("constrained"))
    dotted = ".".join(str(part) for part in location if part not in ("float", "literal['auto']"))
    if problem["type"] == "extra_forbidden":
        key = str(location[-1])
        return f"unknown setting {dotted!r:.90}{nearest_hint(key, _known_keys(location))}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not dotted:
        return message
    return f"{dotted:.90} = {problem['input']!r:.60}: {message[0].lower()}{message[1:]}"
