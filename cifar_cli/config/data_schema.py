"""The settings of the images, and the base of all sections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cifar_cli.errors import path_problem


def _path(text: str) -> str:
    problem = path_problem(text)
    try:
        Path(text).expanduser()
    except (RuntimeError, ValueError) as error:
        problem = problem or str(error)
    if problem:
        raise ValueError(f"no path: {problem}")
    return text


PathText = Annotated[str, AfterValidator(_path)]
Unit = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(ge=0.001, le=1000)]
MOST_IMAGES = 10**9
SMALLEST, LARGEST = 16, 512
"""Sizes in pixels of the smallest and the largest images that networks are trained on."""


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused, NaN and infinity refused."""

    # pydantic could read the docstrings of settings too, but would do so at each start.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


MEAN = (0.491, 0.482, 0.447)
"""Of CIFAR-10."""


class DataConfig(Section):
    """The images: source, number, size and normalisation."""

    source: PathText = "cifar10"
    """`cifar10`, `shapes`, a folder or an archive with class folders, a CSV file of path,label,
    or CIFAR-10's own archive or folder."""
    dir: PathText | None = None
    """Folder for downloads and caches. null: CIFAR_RESNET_HOME, or the platform's cache
    folder."""
    workers: int = Field(0, ge=0, le=64)
    """Number of loader processes for augmentation with Albumentations. 0: augment in the
    training process."""
    limit_train: int | None = Field(None, ge=1, le=MOST_IMAGES)
    """Train on a random subset of this many images. null: all."""
    limit_val: int | None = Field(None, ge=1, le=MOST_IMAGES)
    """Validate on a random subset of this many images. null: all."""
    val_fraction: float = Field(0.0, ge=0, lt=1)
    """Fraction of the training images held out for validation. 0: validate on the validation
    split, else the test split, else on a fifth of the training images."""
    image_size: int = Field(32, ge=SMALLEST, le=LARGEST)
    """Image size in pixels. Images of other sizes are resized once, when decoded."""
    resize: Literal["crop", "pad", "squash"] = "crop"
    """How an image that is not square becomes so. `crop`: cut out its centre; `pad`: add borders
    of the mean colour; `squash`: change its shape."""
    as_stored: bool = False
    """Take pixels as earlier versions did: ignore the EXIF orientation, drop transparency, and do
    not scale 12-bit data."""
    skip_bad_images: bool = False
    """Skip unreadable image files in class folders. false: refuse to start."""
    mean: tuple[Unit, Unit, Unit] | Literal["auto"] = MEAN
    """Mean per channel, of pixels scaled to 0..1. `auto`: that of the training images."""
    std: tuple[Deviation, Deviation, Deviation] | Literal["auto"] = (0.247, 0.244, 0.262)
    """Standard deviation per channel, of pixels scaled to 0..1. `auto`: that of the training
    images."""

    @property
    def mean_colour(self) -> tuple[int, ...]:
        """The mean in 0..255, with which cutout fills its square; CIFAR-10's if it is `auto`."""
        return tuple(
            round(255 * channel) for channel in (MEAN if self.mean == "auto" else self.mean)
        )

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation, once they are numbers."""
        if self.mean == "auto" or self.std == "auto":
            raise ValueError("data.mean and data.std are not numbers yet: see data.statistics")
        return self.mean, self.std
