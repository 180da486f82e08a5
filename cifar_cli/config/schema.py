"""The configuration: every setting, its default, its bounds, and what it means.

Defaults are the `baseline` recipe: the settings of the ERA V1 session-10 course project.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cifar_cli.errors import path_problem

Unit = Annotated[float, Field(ge=0, le=1)]
Probability = Unit
Share = Annotated[float, Field(ge=0.0001, le=1)]
Deviation = Annotated[float, Field(ge=0.001, le=1000)]
Ratio = Annotated[float, Field(ge=0.01, le=100)]
MOST_IMAGES = 10**9
SMALLEST = 16
"""Side of the smallest images that all networks take, in pixels."""
Channels = Annotated[int, Field(ge=1, le=2048)]


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys refused, NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """Which images, how many, and how they are scaled."""

    source: str = "cifar10"
    """`cifar10`, `shapes`, a folder with class folders, or the original archive or its folder."""
    dir: str | None = None
    """Folder for downloads and caches; None: CIFAR_RESNET_HOME or the platform's cache folder."""
    workers: int = Field(0, ge=0, le=64)
    """Loader processes for the Albumentations form; 0 augments in the training process."""
    limit_train: int | None = Field(None, ge=1, le=MOST_IMAGES)
    """Train on a seeded, class-balanced draw of this many images; None: all."""
    limit_val: int | None = Field(None, ge=1, le=MOST_IMAGES)
    """The same for the images that are validated on."""
    val_fraction: float = Field(0.0, ge=0, lt=1)
    """Share of the training images held out for validation; 0: validate on the test split."""
    image_size: int = Field(32, ge=SMALLEST, le=512)
    """Side length in pixels; images of other sizes are resized to it once, when decoded."""
    skip_bad_images: bool = False
    """Leave out files in class folders that cannot be read as images; False: refuse to start."""
    mean: tuple[Unit, Unit, Unit] = (0.491, 0.482, 0.447)
    """Per-channel mean, pixels scaled to 0..1."""
    std: tuple[Deviation, Deviation, Deviation] = (0.247, 0.244, 0.262)
    """Per-channel standard deviation, pixels scaled to 0..1."""

    @property
    def mean_colour(self) -> tuple[int, ...]:
        """The mean in 0..255, with which cutout holes are filled."""
        return tuple(round(255 * channel) for channel in self.mean)

    @field_validator("source", "dir")
    @classmethod
    def _is_path(cls, text: str | None) -> str | None:
        problem = path_problem(text or "")
        try:
            Path(text or "").expanduser()
        except (RuntimeError, ValueError) as error:
            problem = problem or str(error)
        if problem:
            raise ValueError(f"no path: {problem}")
        return text


class AugmentConfig(Section):
    """The training augmentations, in the order in which they are applied."""

    form: Literal["albumentations", "tensor"] = "albumentations"
    """Albumentations image by image, or tensor operations on the whole batch."""
    crop_p: Probability = 0.2
    """Probability of a random resized crop."""
    crop_scale: tuple[Share, Share] = (0.08, 1.0)
    """Range of the cropped area as a share of the image."""
    crop_ratio: tuple[Ratio, Ratio] = (0.75, 4 / 3)
    """Range of the crop's width / height."""
    translate: int = Field(0, ge=0, le=15)
    """Shift by up to this many pixels each way, with a reflected border; form tensor only."""
    flip: Literal["random", "alternating"] = "random"
    """random: drawn anew in each epoch; alternating: drawn once, then every other epoch; form
    tensor only."""
    flip_p: Probability = 0.2
    """Probability of a horizontal flip, where it is random."""
    cutout_p: Probability = 0.5
    """Probability of one square hole."""
    cutout_size: int = Field(8, ge=1, le=512)
    """Side of the hole in pixels."""

    @field_validator("crop_scale", "crop_ratio")
    @classmethod
    def _ascending(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if ends[0] > ends[1]:
            raise ValueError("must be two ascending numbers")
        return ends

    @model_validator(mode="after")
    def _form_has_it(self) -> AugmentConfig:
        if self.form != "tensor" and (self.translate or self.flip != "random"):
            raise ValueError(
                "augment.translate and augment.flip alternating need augment.form tensor"
            )
        return self


class ModelConfig(Section):
    """The network."""

    name: Literal["custom_resnet", "speed_resnet"] = "custom_resnet"
    """custom_resnet: the course project's; speed_resnet: small, for accuracy within minutes."""
    width: int = Field(64, ge=1, le=1024)
    """custom_resnet: channels of the prep layer; the other layers have 2, 4 and 8 times as many."""
    dropout: float = Field(0.02, ge=0, lt=1)
    """custom_resnet: dropout in the prep layer and in layer 2."""
    residual_dropout: float = Field(0.05, ge=0, lt=1)
    """custom_resnet: dropout in layers 1 and 3, which have residual pairs."""
    widths: tuple[Channels, Channels, Channels] = (32, 96, 192)
    """speed_resnet: channels of its three groups."""
    convolutions: int = Field(2, ge=1, le=4)
    """speed_resnet: convolutions in each group."""
    strided: int = Field(0, ge=0, le=3)
    """speed_resnet: in so many groups, from the first on, the first convolution takes steps of two
    in place of a max-pooling after it, for a quarter of its operations."""
    residual: bool = False
    """speed_resnet: in each group, what its first convolution hands on is added to what the others
    make of it."""
    eval_size: int | None = Field(None, ge=SMALLEST, le=512)
    """speed_resnet: side in pixels to which images are resized where they are only classified, for
    trainings that end on smaller images than there are; None: as they are."""


class OptimConfig(Section):
    """The optimiser: Adam, as in the course project, or Muon for filters and SGD for the rest."""

    name: Literal["adam", "muon"] = "adam"
    """adam: L2 weight decay on all parameters; muon: orthogonalised updates of the filters, SGD for
    biases and the last layer, batch norm's scales left as they start."""
    max_lr: Annotated[float, Field(gt=0, le=100)] | Literal["auto"] = 0.0465
    """Peak learning rate; `auto` (adam only) runs the LR range test first and takes its
    suggestion."""
    weight_decay: float = Field(1e-4, ge=0, le=1)
    """adam: L2 penalty added to the gradient (not decoupled); muon: the share that a step takes off
    biases and the last layer at their peak rates, momentum aside."""
    momentum: float = Field(0.7, ge=0, lt=1)
    """muon: Nesterov momentum of the filters."""
    bias_lr: float = Field(27.0, gt=0, le=100_000)
    """muon: peak learning rate of biases; losses are means over a batch."""
    head_lr: float = Field(343.0, gt=0, le=100_000)
    """muon: peak learning rate of the last layer."""
    sgd_momentum: float = Field(0.85, ge=0, lt=1)
    """muon: Nesterov momentum of biases and the last layer."""


class ScheduleConfig(Section):
    """How the learning rate moves, step by step."""

    name: Literal["one_cycle", "linear"] = "one_cycle"
    """one_cycle: OneCycleLR in two linear phases; linear: from max_lr straight down to 0."""
    div_factor: float = Field(2000.0, ge=1, le=1e12)
    """one_cycle: first learning rate = max_lr / div_factor."""
    final_div_factor: float = Field(100.0, ge=1, le=1e12)
    """one_cycle: last learning rate = max_lr / div_factor / final_div_factor."""
    pct_start: float = Field(5 / 24, gt=0, lt=1)
    """one_cycle: share of all steps in which the learning rate rises."""


class TrainConfig(Section):
    """Length of training and size of its steps."""

    epochs: int = Field(24, ge=1, le=100_000)
    """Passes over the training images."""
    batch_size: int = Field(512, ge=1, le=65_536)
    """Images a step; the last, smaller batch of an epoch is kept."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread evenly over all classes."""
    resolutions: tuple[tuple[Unit, int], ...] = Field((), max_length=100)
    """Pairs of (until which share of the steps, side in pixels): images are resized until then;
    afterwards they are as they are."""
    average_last: Probability = 0.0
    """Share of the steps, the last ones, over whose weights the mean is taken at the end."""
    lookahead: int = Field(0, ge=0, le=1000)
    """Every so many steps, a slow average takes in the weights, ever less of them, and the network
    goes on from that average, and ends as it; 0: never."""
    save_minutes: float = Field(5.0, gt=0, le=1_000_000)
    """Save in the middle of an epoch too, this often; it takes less than a second."""

    @field_validator("resolutions")
    @classmethod
    def _ascending(cls, stages: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
        shares = [share for share, _ in stages]
        if shares != sorted(set(shares)) or any(not SMALLEST <= side <= 512 for _, side in stages):
            raise ValueError(
                f"must be pairs of an ascending share and a side of {SMALLEST} to 512 pixels"
            )
        return stages

    @model_validator(mode="after")
    def _one_average(self) -> TrainConfig:
        if self.lookahead and self.average_last:
            raise ValueError("train.lookahead and train.average_last are two ways; take one")
        return self


class RuntimeConfig(Section):
    """How the same mathematics is run on the device."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that has it, fp32 on CPU and MPS."""
    channels_last: bool = True
    """Memory layout of images and filters; faster on CPU and GPU alike."""
    compile: bool = False
    """torch.compile: worth its compile time on long runs only."""
    lean_memory: bool = True
    """On a CPU (with glibc), give large freed blocks back to the system at once: a quarter less
    memory for `baseline`; False: a tenth more speed for small networks."""
    winograd: bool = True
    """On a CPU in fp32, with channels_last, take convolutions 3x3 with a fraction of the
    multiplications (Winograd's minimal filtering) where that is quicker, and pool them piece by
    piece; the same results up to rounding."""
    native: bool = True
    """With winograd, use code that is compiled on this machine where it has gcc (on Linux): half
    the time for a step of a small network; compiling takes seconds, once."""
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads of torch; None leaves torch's own choice."""


class Config(Section):
    """Everything that decides what a run computes, and how."""

    seed: int = Field(1, ge=0, le=2**31 - 1)
    """Seed of initialisation, order of images, augmentation and dropout."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; auto: cuda, else mps, else cpu."""
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _hole_fits(self) -> Config:
        if self.augment.cutout_size > self.data.image_size:
            raise ValueError(
                f"augment.cutout_size {self.augment.cutout_size} is larger than "
                f"data.image_size {self.data.image_size}"
            )
        return self

    @model_validator(mode="after")
    def _rates_of_muon(self) -> Config:
        if self.optim.name == "muon" and self.optim.max_lr == "auto":
            raise ValueError(
                "optim.max_lr auto is for adam; muon has three rates that are found together, so "
                "give a number"
            )
        return self
