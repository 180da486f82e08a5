"""Studies in a database, by Optuna: SQLite in a file, or PostgreSQL for several machines."""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cifar_cli.errors import ConfigError, StorageError, check_extra
from cifar_cli.experiments.study_file import Range, Study
from cifar_cli.experiments.trials import Attempt, State

if TYPE_CHECKING:
    import optuna

PLAN, ORIGIN, SURPLUS, ERROR = "plan", "origin", "surplus", "error"
SIGNS_BEFORE_LOST = 4
"""A worker gives so many signs of life in the time after which it counts as lost."""
MOST_AT_ONCE = 20
"""Workers that may begin a study at the same moment."""
_THERE_ALREADY = ("already exists", "unique constraint")
BUSY_SECONDS = 60
"""So long SQLite waits for another worker's write."""
_STATES: dict[str, State] = {
    "WAITING": "waiting", "RUNNING": "running", "COMPLETE": "complete", "PRUNED": "pruned",
    "FAIL": "failed",
}  # fmt: skip


def checked_url(url: str | None, folder: Path) -> str:
    """The storage as SQLAlchemy names it; None: a file in the study's folder.

    Raises:
        ConfigError: Another database, or a package that it needs is not installed.
    """
    check_extra("sweep", ["optuna"], "A sweep")
    if url is None:
        return f"sqlite:///{quote(str(folder / 'study.db'))}"
    kind, separator, rest = url.partition("://")
    if separator and kind == "sqlite":
        return url
    if separator and kind in ("postgresql", "postgres", "postgresql+psycopg"):
        check_extra("postgresql", ["psycopg"], "A PostgreSQL storage")
        return f"postgresql+psycopg://{rest}"
    raise ConfigError(
        f"--storage {without_password(url)}: no database that can be used.",
        "Give sqlite:///FILE, or postgresql://USER@HOST/DATABASE.",
    )


def without_password(url: str) -> str:
    """The address of a database as it may be shown."""
    return re.sub(r"(://[^/@]*?):[^@]*@", r"\1:***@", url)


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Make errors of the database such as a user can act on."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with warnings.catch_warnings():
            # The signs of life of workers are marked as experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = getattr(error, "orig", None) or error.__cause__ or error
        reason = " ".join(str(getattr(cause, "orig", None) or cause).split())
        raise StorageError(
            f"The storage {without_password(url)} cannot be used: {without_password(reason)}.",
            "Check --storage, and that the database is running.",
        ) from error


def open_study(study: Study, name: str, url: str) -> optuna.Study:
    """Open a study in the storage, or begin it.

    Raises:
        ConfigError: A study of that name searches something else.
        StorageError: The storage cannot be used.
    """
    import optuna
    from sqlalchemy.exc import DatabaseError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with storage_errors(url):
        for turn in range(MOST_AT_ONCE + 1):
            try:
                opened = _open_study(study, name, url)
                break
            except (DatabaseError, optuna.exceptions.StorageInternalError) as error:
                # Of two workers that create the tables or the study at one moment, one fails.
                said = f"{error} {error.__cause__}".lower()
                if turn == MOST_AT_ONCE or not any(text in said for text in _THERE_ALREADY):
                    raise
                time.sleep(0.2)
        kept: Mapping[str, Any] = opened.user_attrs[PLAN]
    differ = [key for key in study.asked if kept.get(key) != study.asked[key]]
    if differ:
        raise ConfigError(
            f"The study {name!r} was begun with another {' and another '.join(differ)}.",
            "Give another --name, or the file as it was.",
        )
    return opened


def _open_study(study: Study, name: str, url: str) -> optuna.Study:
    import optuna

    arguments = {"timeout": BUSY_SECONDS} if url.startswith("sqlite") else {"connect_timeout": 10}
    storage = optuna.storages.RDBStorage(
        url,
        engine_kwargs={"connect_args": arguments},
        heartbeat_interval=max(1, study.lost_after // SIGNS_BEFORE_LOST),
        grace_period=study.lost_after,
    )
    opened = optuna.create_study(
        study_name=name,
        storage=storage,
        load_if_exists=True,
        direction=study.direction,
        sampler=_sampler(study),
        pruner=_pruner(study),
    )
    if PLAN not in opened.user_attrs:
        opened.set_user_attr(PLAN, study.asked)
    return opened


def _sampler(study: Study) -> optuna.samplers.BaseSampler:
    import optuna

    # Trials of other workers that still run count as bad ones, so that all search elsewhere.
    if study.sampler == "tpe":
        return optuna.samplers.TPESampler(constant_liar=True)
    return optuna.samplers.RandomSampler()


def _pruner(study: Study) -> optuna.pruners.BasePruner:
    import optuna

    if study.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    if study.pruner == "halving":
        return optuna.pruners.SuccessiveHalvingPruner()
    return optuna.pruners.NopPruner()


def attempts_in(study: optuna.Study) -> list[Attempt]:
    """All trials of the storage."""
    return [attempt_of(trial) for trial in study.get_trials(deepcopy=False)]


def attempt_of(trial: optuna.trial.FrozenTrial) -> Attempt:
    """What a trial of the storage says of itself."""
    said = trial.user_attrs
    return Attempt(
        trial.number,
        _STATES[trial.state.name],
        said.get(ORIGIN),
        SURPLUS in said,
        str(said.get(ERROR, "")),
    )


def draw(trial: optuna.Trial, study: Study) -> dict[str, Any]:
    """The values of a trial, by dotted key: drawn, or those of an attempt before."""
    values: dict[str, Any] = {}
    for key, space in study.search.items():
        if not isinstance(space, Range):
            values[key] = json.loads(trial.suggest_categorical(key, [*map(json.dumps, space)]))
        elif space.is_whole:
            step = int(space.step or 1)
            values[key] = trial.suggest_int(
                key, int(space.low), int(space.high), step=step, log=space.log
            )
        else:
            values[key] = trial.suggest_float(
                key, float(space.low), float(space.high), step=space.step, log=space.log
            )
    return values


def values_of(trial: optuna.trial.FrozenTrial, study: Study) -> dict[str, Any]:
    """The values of a trial that is over, by dotted key."""
    plain = {
        key: value if isinstance(study.search[key], Range) else json.loads(value)
        for key, value in trial.params.items()
    }
    return {key: plain[key] for key in study.search if key in plain}


def try_again(study: optuna.Study, first: int) -> None:
    """Enqueue another attempt at a lost trial, with the values that an attempt before has drawn."""
    trials = study.get_trials(deepcopy=False)
    own = [t.params for t in trials if first in (t.number, t.user_attrs.get(ORIGIN))]
    study.enqueue_trial(max(own, key=len), user_attrs={ORIGIN: first})
