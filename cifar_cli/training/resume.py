"""What a resumed run may change, and what must be as it was."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from cifar_cli.config import Config
from cifar_cli.config.loading import flat_settings
from cifar_cli.config.migration import no_longer
from cifar_cli.data.loader import TrainLoader
from cifar_cli.data.splits import Splits, choose_splits
from cifar_cli.data.types import Dataset
from cifar_cli.errors import CheckpointError, CifarError, ConfigError
from cifar_cli.rundir import RunDir
from cifar_cli.training.checkpoint import Checkpoint
from cifar_cli.training.pretrained import is_same
from cifar_cli.training.state import TrainState

# How a run is computed may change at a resume; what it computes may not.
FREE_TO_CHANGE = {
    "data.dir", "data.source", "data.workers", "data.skip_bad_images", "data.resize",
    "data.as_stored", "device",
    "runtime.threads", "runtime.channels_last", "runtime.compile", "runtime.lean_memory",
    "runtime.winograd", "runtime.native", "train.save_minutes",
}  # fmt: skip
# The shapes of the weights depend on these, and an error about a shape is clearer.
CHECKED_BY_SHAPE = {"model.name", "model.width", "model.widths", "model.convolutions"}
IMAGES = "the images"
# If one of these changes, a step no longer stands for the same images.
RESTARTS_EPOCH = {IMAGES, "train.batch_size", "data.limit_train", "data.val_fraction", "seed"}
# If one of these changes, the same steps give other results, if only in the last digits.
AFFECTS_ROUNDING = ("cifar_resnet", "processor", "device", "device_name", "compiled_code")


class Change(NamedTuple):
    """A setting, or a fact of the environment, that is not as it was."""

    key: str
    before: Any = None
    now: Any = None

    def __str__(self) -> str:
        if self.before is None and self.now is None:
            return self.key
        return f"{self.key} {self.before} → {self.now}"


def listed(changes: Sequence[Change]) -> str:
    """Changes in one line."""
    return "; ".join(map(str, changes))


def resumed_settings(
    config: Config, checkpoint: Checkpoint, allow_changes: bool
) -> tuple[Config, list[Change]]:
    """The settings to go on with, and what of them differs from the run's own.

    Raises:
        ConfigError: Something that decides the result would change, and may not.
        CheckpointError: The run was trained in a way that this version does not know.
    """
    old = checkpoint.config
    if checkpoint.dropped:
        raise CheckpointError(
            f"{checkpoint.path} cannot be resumed: {'; '.join(no_longer(checkpoint.dropped))}.",
            "It can be evaluated. Start a new run, or use the version that wrote it.",
        )
    if config.optim.max_lr == "auto":
        optim = config.optim.model_copy(update={"max_lr": old.optim.max_lr})
        config = config.model_copy(update={"optim": optim})
    measured = {
        n: getattr(old.data, n) for n in ("mean", "std") if getattr(config.data, n) == "auto"
    }
    config = config.model_copy(update={"data": config.data.model_copy(update=measured)})
    if is_same(config.train.init, old.train.init):
        train = config.train.model_copy(update={"init": old.train.init})
        config = config.model_copy(update={"train": train})
    before, now = flat_settings(old), flat_settings(config)
    changed = [
        Change(key, before[key], now[key])
        for key in before
        if key in now  # another network, or another optimiser, has others
        and before[key] != now[key]
        and key not in FREE_TO_CHANGE | CHECKED_BY_SHAPE
    ]
    run = checkpoint.path.parent.parent
    if changed and not allow_changes:
        raise ConfigError(
            f"--resume uses the settings of {run}, but these differ: {listed(changed)}.",
            "Leave them out, start a new run, or add --allow-changes.",
        )
    _refuse_what_cannot_change(config, checkpoint, changed)
    return config, changed


def _refuse_what_cannot_change(
    config: Config, checkpoint: Checkpoint, changed: list[Change]
) -> None:
    training = checkpoint.training
    begun = training.epoch - (training.step == 0) if training else 0
    held_out = config.data.val_fraction or checkpoint.config.data.val_fraction
    for change in changed:
        why = None
        if change.key == "optim.name":
            why = "the optimiser's averages would not fit"
        elif change.key == "train.init":
            why = "the run has started from its own weights"
        elif change.key == "train.epochs" and config.train.epochs < begun:
            why = f"{begun} epochs have begun"
        elif change.key in ("seed", "data.val_fraction") and held_out:
            why = "the run would be validated on images that it was trained on"
        if why:
            raise ConfigError(f"--allow-changes cannot change {change}: {why}.", "Start a new run.")


def changed_images(
    dataset: Dataset, splits: Splits, checkpoint: Checkpoint, config: Config, allow_changes: bool
) -> list[Change]:
    """What differs about the images of a resumed run, `splits` of `dataset` as `config` says.

    Raises:
        ConfigError: They differ, and may not.
    """
    if splits.fingerprint == checkpoint.data:
        return []
    if not allow_changes:
        raise ConfigError(
            f"--resume: the images are not those that {checkpoint.path.parent.parent} was trained "
            "on.",
            "Give it the same --data, start a new run, or add --allow-changes.",
        )
    old = checkpoint.config
    # Drawn as at first, they must be the same; at another size, pixels cannot be compared.
    if splits.val_from == "train" and config.data.image_size == old.data.image_size:
        before = choose_splits(dataset, old.data, old.seed)
        if before.fingerprint != checkpoint.data:
            raise ConfigError(
                "--allow-changes cannot change the images: the run might be validated on images "
                "that it was trained on.",
                "Start a new run.",
            )
    return [Change(IMAGES)]


def with_folder(config: Config, suggested: str | None) -> Config:
    """Note the data folder of a run, unless there is another one now, for its next resume."""
    data = config.data.model_copy(update={"dir": config.data.dir or suggested})
    return config.model_copy(update={"data": data})


def restarts_epoch(changed: list[Change]) -> bool:
    """Whether a step no longer stands for the same images, so that an epoch must start again."""
    return any(change.key in RESTARTS_EPOCH for change in changed)


def check_position(
    state: TrainState, checkpoint: Checkpoint, loader: TrainLoader, changed: list[Change]
) -> None:
    """Refuse a place in an epoch that an epoch of these images does not have.

    Raises:
        CheckpointError: The checkpoint holds more of its epoch.
    """
    if restarts_epoch(changed):  # the epoch starts over
        return
    images = 0 if state.correct is None else int(state.correct)
    for entry, found, most in (
        ("step", state.step, loader.steps),
        ("correct", images, len(loader.images)),
    ):
        if found > most:
            raise CheckpointError(
                f"{checkpoint.path}: training.{entry} is {found}, and an epoch has {most} at most."
            )


def inexact_reasons(run: RunDir, now: dict[str, Any], config: Config) -> list[Change]:
    """Why a resumed run will not be bit-identical to one that was never stopped; empty if it will.

    Of what decides the last digits: what differs from when the run was last trained, and
    torch.compile, whose kernels depend on the order in which shapes of batches are met.
    """
    was_compiled = config.runtime.compile
    with suppress(CifarError):  # a damaged config.yaml, which is written again
        was_compiled = run.read_config().runtime.compile
    changed = _changed_environment(run, now)
    if was_compiled or config.runtime.compile:
        changed.append(Change("runtime.compile"))
    return changed


def _changed_environment(run: RunDir, now: dict[str, Any]) -> list[Change]:
    before = run.peek_json("env.json")  # if it is damaged, that says nothing of the run itself
    old, new = _deciding(before), _deciding(now)
    return [Change(key, old[key], new[key]) for key in old if key in new and old[key] != new[key]]


def _deciding(environment: dict[str, Any]) -> dict[str, Any]:
    keys = [*AFFECTS_ROUNDING, *(["threads"] if environment.get("device") == "cpu" else [])]
    packages = environment.get("packages")
    found = {key: environment[key] for key in keys if key in environment}
    found |= packages if isinstance(packages, dict) else {}
    # The file may hold anything; what is longer was not written by this program.
    return {key: value for key, value in found.items() if len(f"{key}{value}") <= 200}
