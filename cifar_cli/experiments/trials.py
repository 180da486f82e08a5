"""Which trials of a study count, which are lost, and who may run: from the list of trials alone.

A trial that a worker took and did not finish is tried again by a copy, its next attempt. All
workers see one list, in one order, so that they come to one answer without talking to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

State = Literal["waiting", "running", "complete", "pruned", "failed"]
MOST_ATTEMPTS = 10
"""A trial that ended so many workers is given up."""


@dataclass(frozen=True)
class Attempt:
    """One trial of the storage."""

    number: int
    """Given by the storage, from 0, in the order of their coming."""
    state: State
    origin: int | None = None
    """The first attempt at the same trial; None: this is the first."""
    is_surplus: bool = False
    """It came when others already made up the number, or had taken that trial."""
    error: str = ""
    """Why the trial failed by itself, so that it is not tried again."""

    @property
    def first(self) -> int:
        """Number of the first attempt, by which the trial is known."""
        return self.number if self.origin is None else self.origin


class Tally(NamedTuple):
    """How a study stands. Trials are named by the number of their first attempt."""

    complete: tuple[int, ...]
    pruned: tuple[int, ...]
    failed: tuple[int, ...]
    running: tuple[int, ...]
    """Taken by a worker, or waiting for the next one."""
    lost: tuple[int, ...]
    """To be tried again."""

    @property
    def finished(self) -> int:
        """Trials that need nothing more."""
        return len(self.complete) + len(self.pruned) + len(self.failed)

    @property
    def begun(self) -> int:
        return self.finished + len(self.running) + len(self.lost)


def tally(attempts: Sequence[Attempt]) -> Tally:
    """Sort the trials by how they stand."""
    found: dict[str, list[int]] = {name: [] for name in Tally._fields}
    for first, own in _by_trial(attempts).items():
        states = {attempt.state for attempt in own}
        if "complete" in states or "pruned" in states:
            found["complete" if "complete" in states else "pruned"].append(first)
        elif states & {"running", "waiting"}:
            found["running"].append(first)
        elif any(a.error for a in own) or len(own) >= MOST_ATTEMPTS:
            found["failed"].append(first)
        else:
            found["lost"].append(first)
    return Tally(**{name: tuple(numbers) for name, numbers in found.items()})


def may_run(attempts: Sequence[Attempt], number: int, wanted: int) -> bool:
    """Whether the attempt `number`, which its worker has just taken, is to be run.

    A first attempt: if fewer than `wanted` trials began before it. A later one: if no earlier
    attempt at the same trial is alive or finished.
    """
    trials = _by_trial(attempts)
    own = next(a for a in attempts if a.number == number)
    if own.origin is None:
        return sum(first < number for first in trials) < wanted
    alive = ("running", "waiting", "complete", "pruned")
    return not any(a.number < number and a.state in alive for a in trials.get(own.first, ()))


def _by_trial(attempts: Sequence[Attempt]) -> dict[int, list[Attempt]]:
    trials: dict[int, list[Attempt]] = {}
    for attempt in sorted(attempts, key=lambda a: a.number):
        if not attempt.is_surplus:
            trials.setdefault(attempt.first, []).append(attempt)
    return trials
