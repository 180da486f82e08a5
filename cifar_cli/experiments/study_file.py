"""What a study searches: the YAML file that a user writes, checked before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cifar_cli.config import Config
from cifar_cli.config.recipe_files import read_file
from cifar_cli.config.settings import SETTINGS
from cifar_cli.errors import ConfigError, nearest_hint
from cifar_cli.training.choosing import load_config

BETWEEN = 0.3717
"""A share of a range at which no setting for whole numbers has one."""
_OF_IMAGES = (
    "data.source",
    "data.dir",
    "data.val_fraction",
    "data.limit_val",
    "data.skip_bad_images",
)
Number = Annotated[int | float, Field(allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Range(_Strict):
    """Numbers from `low` to `high`, whole ones if both are; by the logarithm, or in steps."""

    low: Number
    high: Number
    step: Number | None = None
    log: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Range:
        if self.low >= self.high:
            raise ValueError("low must be below high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("with log, low must be above 0, and there is no step")
        if self.step is not None and self.step <= 0:
            raise ValueError("step must be above 0")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether its values are whole numbers."""
        return all(isinstance(n, int) for n in (self.low, self.high, self.step or 1))


class Study(_Strict):
    """One study: what is searched, what counts, and when it ends."""

    search: dict[str, Range | list[Any]] = Field(min_length=1)
    """By dotted key: a range, or a list of values to choose from."""
    recipe: str | None = None
    """None: as for `train` without --recipe."""
    data: str | None = None
    set: dict[str, Any] = {}
    """Settings of every trial, by dotted key."""
    objective: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    """Of the last epoch, mean over the seeds."""
    seeds: int = Field(1, ge=1, le=100)
    """Trainings of each trial that is not pruned."""
    sampler: Literal["tpe", "random"] = "tpe"
    pruner: Literal["median", "halving", "none"] = "median"
    """Ends trials that do badly at an epoch, compared with others at that epoch."""
    trials: int = Field(50, ge=1, le=100_000)
    minutes: float | None = Field(None, gt=0)
    lost_after: int = Field(60, ge=4, le=3600)
    """Seconds without a sign of its worker after which a trial counts as lost, and is resumed."""

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        return "minimize" if self.objective == "val_loss" else "maximize"

    @property
    def asked(self) -> dict[str, Any]:
        """What may not change while the study goes on: all but its end."""
        return self.model_dump(mode="json", exclude={"trials", "minutes", "lost_after"})

    def config(self, values: Mapping[str, Any], seed: int = 1) -> Config:
        """The configuration of a training with values of the searched settings.

        Raises:
            ConfigError: The values do not fit, or the test split would be validated on.
        """
        settings = {**self.set, **values, "seed": seed}
        return load_config(self.recipe, data=self.data, settings=settings)


def read_study(path: Path) -> Study:
    """Read and check a study file.

    Raises:
        ConfigError: It is no such file, or a setting or one of its values is wrong.
    """
    tree = read_file(path)
    search = tree.get("search")
    if isinstance(search, dict):  # each by itself, so that a message speaks of what was meant
        tree["search"] = {
            key: _space(value, f"{path}: search.{key:.90}") for key, value in search.items()
        }
    try:
        study = Study.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_problems(error)}.") from error
    for key in study.search:
        where = f"{path}: search.{key:.90}"
        if key not in SETTINGS:
            raise ConfigError(f"{where}: unknown setting{nearest_hint(key, SETTINGS)}.")
        if key in study.set:
            raise ConfigError(f"{where} is set for every trial.")
        if key in _OF_IMAGES:
            raise ConfigError(
                f"{where} decides which images validate, and trials are compared on the same ones.",
                "Put it under `set`.",
            )
    if "seed" in {*study.search, *study.set}:
        raise ConfigError(f"{path}: seed: each training has its own.", "Say how many: seeds: 3")
    _check_values(study, path)
    return study


def _space(value: Any, where: str) -> Range | list[Any]:
    """A range, or values to choose from."""
    if isinstance(value, dict):
        try:
            return Range.model_validate(value)
        except ValidationError as error:
            raise ConfigError(f"{where}: {_problems(error)}.") from error
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{where}: expected a list of values, or a range with low and high.")
    try:
        texts = [json.dumps(choice) for choice in value]
    except TypeError as error:  # a date of YAML's
        raise ConfigError(f"{where}: {value!r:.90} holds a value that no setting takes.") from error
    if len(set(texts)) < len(texts):
        raise ConfigError(f"{where}: a value stands twice.")
    return value


def _check_values(study: Study, path: Path) -> None:
    """Each end of a range, a number between them, and each choice must be what training takes."""
    first = first_values(study)
    for key, space in study.search.items():
        for value in _samples(space):
            try:
                study.config({**first, key: value})
            except ConfigError as error:
                raise ConfigError(f"{path}: search.{key} with {value!r:.60}: {error}") from error


def first_values(study: Study) -> dict[str, Any]:
    """One value of each searched setting."""
    return {key: _samples(space)[0] for key, space in study.search.items()}


def _samples(space: Range | list[Any]) -> list[Any]:
    """Both ends of a range and a number between them, or all choices."""
    if not isinstance(space, Range):
        return space
    if space.is_whole:
        return [space.low, space.high]
    between = space.low + (space.step or BETWEEN * (space.high - space.low))
    return [float(space.low), float(space.high), between]


def _problems(error: ValidationError) -> str:
    return "; ".join(map(_problem, error.errors()))


def _problem(problem: Any) -> str:
    place = ".".join(map(str, problem["loc"]))
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        known = [*Study.model_fields, *Range.model_fields]
        return f"unknown entry {place!r:.90}{nearest_hint(place, known)}"
    return f"{f'{place:.90}: ' if place else ''}{message[:1].lower()}{message[1:]}"
