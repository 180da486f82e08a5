"""Every setting by its dotted key, over all classes of the sections, and what depends on what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, get_args

from pydantic.fields import FieldInfo

from cifar_cli.config.data_schema import Section
from cifar_cli.config.schema import Config

SECTIONS = tuple(
    name for name, field in Config.model_fields.items() if isinstance(field.default, Section)
)
TAGS = {s: tag for s in SECTIONS if isinstance(tag := Config.model_fields[s].discriminator, str)}
"""The setting that names the class of a section, by section: `name`, or `form`."""


class Setting(NamedTuple):
    """One setting of one class of a section."""

    key: str
    """Dotted, such as `model.width`."""
    variant: str
    """Name of the class, such as `custom_resnet`; empty if the section has a single one."""
    field: FieldInfo


class Dependence(NamedTuple):
    """A setting that another setting of the same configuration can leave without effect."""

    key: str
    switch: str
    works: Callable[[Any], bool]
    """Whether the setting has an effect at a value of the switch."""


def _is_true(value: Any) -> bool:
    return bool(value)


DEPENDENCES = (
    Dependence("augment.crop_scale", "augment.crop_p", _is_true),
    Dependence("augment.crop_ratio", "augment.crop_p", _is_true),
    Dependence("augment.cutout_size", "augment.cutout_p", _is_true),
    Dependence("augment.flip_p", "augment.flip", lambda flip: flip != "alternating"),
    Dependence("model.residual", "model.convolutions", lambda count: count > 1),
    Dependence("optim.init_lr_scale", "train.init", _is_true),
    Dependence("runtime.winograd", "runtime.channels_last", _is_true),
    Dependence("runtime.winograd", "runtime.precision", lambda precision: precision != "bf16"),
    Dependence("runtime.native", "runtime.winograd", _is_true),
    # All steps have a size of their own, and so has classifying.
    Dependence("data.image_size", "train.resolutions", lambda r: not r or r[-1][0] < 1),
)


def variants(section: str) -> dict[str, type[Section]]:
    """The classes of a section by name; a single one has the name ''."""
    field = Config.model_fields[section]
    if section in TAGS:
        classes = get_args(field.annotation)
        return {cls.model_fields[TAGS[section]].default: cls for cls in classes}
    return {"": type(field.default)}


def all_settings() -> Iterator[Setting]:
    """Every setting of every class, in the order of the schema."""
    for name, field in Config.model_fields.items():
        if name not in SECTIONS:
            yield Setting(name, "", field)
            continue
        for variant, cls in variants(name).items():
            for inner, inner_field in cls.model_fields.items():
                yield Setting(f"{name}.{inner}", variant, inner_field)


SETTINGS = tuple(dict.fromkeys(setting.key for setting in all_settings()))
"""The dotted keys of all settings."""


def owners(section: str, name: str) -> list[str]:
    """The classes of a section that have the setting `name`."""
    return [variant for variant, cls in variants(section).items() if name in cls.model_fields]


def chosen_variant(section: str, tree: Mapping[str, Any]) -> str:
    """The class that a section's plain values name, or the default one; it may not exist."""
    tag = TAGS[section]
    default = getattr(Config.model_fields[section].default, tag)
    return str(tree.get(tag, default))


def drop_other_variants(tree: dict[str, Any], section: str, variant: str) -> None:
    """Take out of a section's plain values what only its other classes have."""
    known = variants(section)
    if variant in known:
        for name in set(tree) - set(known[variant].model_fields):
            if owners(section, name):
                del tree[name]
