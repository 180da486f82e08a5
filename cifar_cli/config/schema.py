"""The configuration: every setting, its default, its bounds, and what it means.

Defaults are the `baseline` recipe: the settings of the ERA V1 session-10 course project. A section
with a name (`augment`: a form) has one class per name, each with the settings that have an effect
there. Below each setting stands its explanation, which doc/settings.md and `recipes explain` show.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from cifar_cli.config.data_schema import (
    LARGEST,
    SMALLEST,
    DataConfig,
    PathText,
    Section,
    Unit,
)

Probability = Unit
Share = Annotated[float, Field(ge=0.0001, le=1)]
Ratio = Annotated[float, Field(ge=0.01, le=100)]
Channels = Annotated[int, Field(ge=1, le=2048)]


class _Augment(Section):
    """What both forms of the augmentation have."""

    form: str
    crop_p: Probability = 0.2
    """Probability of a random resized crop."""
    crop_scale: tuple[Share, Share] = (0.08, 1.0)
    """Range of the crop's area, as a fraction of the image."""
    crop_ratio: tuple[Ratio, Ratio] = (0.75, 4 / 3)
    """Range of the crop's aspect ratio, width / height."""
    flip_p: Probability = 0.2
    """Probability of a horizontal flip, unless flips alternate."""
    cutout_p: Probability = 0.5
    """Probability of cutout: one square is filled."""
    cutout_size: int = Field(8, ge=1, le=LARGEST)
    """Side of the cutout square in pixels."""

    @field_validator("crop_scale", "crop_ratio")
    @classmethod
    def _ascending(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if ends[0] > ends[1]:
            raise ValueError("must be two ascending numbers")
        return ends


class AlbumentationsConfig(_Augment):
    """Augmentation by Albumentations, image by image."""

    form: Literal["albumentations"] = "albumentations"


class TensorConfig(_Augment):
    """Augmentation by torch operations on the whole batch."""

    form: Literal["tensor"] = "tensor"
    translate: int = Field(0, ge=0, le=15)
    """Largest translation in pixels, in each direction. The border is reflected."""
    flip: Literal["random", "alternating"] = "random"
    """`random`: draw in each epoch whether an image is flipped; `alternating`: draw once, then
    flip every other epoch."""


class CustomResnetConfig(Section):
    """The network of the course project."""

    name: Literal["custom_resnet"] = "custom_resnet"
    width: int = Field(64, ge=1, le=1024)
    """Channels of the prep layer. The other layers have 2, 4 and 8 times as many."""
    dropout: float = Field(0.02, ge=0, lt=1)
    """Dropout probability in the prep layer and in layer 2."""
    residual_dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout probability in layers 1 and 3, which have residual pairs."""


class SpeedResnetConfig(Section):
    """The network of the speed recipes."""

    name: Literal["speed_resnet"] = "speed_resnet"
    widths: tuple[Channels, Channels, Channels] = (32, 96, 192)
    """Channels of the three groups."""
    convolutions: int = Field(2, ge=1, le=4)
    """Number of convolutions in each group."""
    residual: bool = False
    """Add a shortcut to each group, around all of its convolutions but the first."""


class _Optim(Section):
    """What both optimisers have."""

    name: str
    init_lr_scale: Unit = 0.3
    """With train.init, learning rates of the layers that are taken over, as a fraction of the
    others. A new last layer trains at the full rate."""


class AdamConfig(_Optim):
    """Adam for all parameters."""

    name: Literal["adam"] = "adam"
    max_lr: Annotated[float, Field(gt=0, le=100)] | Literal["auto"] = 0.0465
    """Peak learning rate. `auto`: run the LR range test first and take its
    suggestion."""
    weight_decay: float = Field(1e-4, ge=0, le=1)
    """L2 penalty, added to the gradient (not decoupled)."""


class MuonConfig(_Optim):
    """Muon for convolution filters, SGD with Nesterov momentum for biases and the last layer."""

    name: Literal["muon"] = "muon"
    max_lr: float = Field(0.0465, gt=0, le=100)
    """Peak learning rate of convolution filters."""
    weight_decay: float = Field(1e-4, ge=0, le=1)
    """Fraction that a step takes off biases and the last layer at their peak learning rates,
    momentum aside."""
    momentum: float = Field(0.7, ge=0, lt=1)
    """Nesterov momentum of convolution filters."""
    bias_lr: float = Field(27.0, gt=0, le=100_000)
    """Peak learning rate of biases. Losses are means over a batch."""
    head_lr: float = Field(343.0, gt=0, le=100_000)
    """Peak learning rate of the last layer."""
    sgd_momentum: float = Field(0.85, ge=0, lt=1)
    """Nesterov momentum of biases and the last layer."""

    @field_validator("max_lr", mode="before")
    @classmethod
    def _is_number(cls, rate: object) -> object:
        if rate == "auto":
            raise ValueError("auto is for adam; muon has three peak rates, so give a number")
        return rate


class OneCycleConfig(Section):
    """OneCycleLR in two linear phases: up to max_lr, then down."""

    name: Literal["one_cycle"] = "one_cycle"
    div_factor: float = Field(2000.0, ge=1, le=1e12)
    """First learning rate = max_lr / div_factor."""
    final_div_factor: float = Field(100.0, ge=1, le=1e12)
    """Last learning rate = first learning rate / final_div_factor."""
    pct_start: float = Field(5 / 24, gt=0, lt=1)
    """Fraction of all steps in which the learning rate rises."""


class LinearConfig(Section):
    """From max_lr straight down to 0."""

    name: Literal["linear"] = "linear"


AugmentConfig = AlbumentationsConfig | TensorConfig
ModelConfig = CustomResnetConfig | SpeedResnetConfig
OptimConfig = AdamConfig | MuonConfig
ScheduleConfig = OneCycleConfig | LinearConfig


class TrainConfig(Section):
    """Length of training, batch size and loss."""

    init: PathText | None = None
    """Start from the weights of a trained network: a run (its best epoch), a checkpoint, or an
    exported safetensors file. Network, normalisation and image size are then its own. null: start
    from random weights."""
    epochs: int = Field(24, ge=1, le=100_000)
    """Number of epochs."""
    batch_size: int = Field(512, ge=1, le=65_536)
    """Batch size. The last, smaller batch of an epoch is kept."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Label smoothing: fraction of the target spread evenly over all classes."""
    class_weights: bool | Literal["auto"] = False
    """Weigh each class's loss by the inverse of its number of training images. `auto`: if classes
    differ by more than ten times."""
    resolutions: tuple[tuple[Unit, int], ...] = Field((), max_length=100)
    """Progressive resizing: pairs of a fraction of all steps and an image size in pixels.
    Images have that size until that fraction is done, and `data.image_size` after the last
    pair. The network classifies at the size of the last step."""
    save_minutes: float = Field(5.0, gt=0, le=1_000_000)
    """Minutes between checkpoints within an epoch."""

    @field_validator("resolutions")
    @classmethod
    def _ascending(cls, stages: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
        shares = [share for share, _ in stages]
        sizes = [size for _, size in stages]
        if shares != sorted(set(shares)) or any(not SMALLEST <= s <= LARGEST for s in sizes):
            raise ValueError(
                f"must be pairs of an ascending share and a side of {SMALLEST} to {LARGEST} pixels"
            )
        return stages


class RuntimeConfig(Section):
    """How the same mathematics runs on the device."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 autocast on a GPU that supports it, fp32 on CPU and MPS."""
    channels_last: bool = True
    """Memory layout of images and filters: channels last. Faster on CPU and GPU."""
    compile: bool = False
    """Use torch.compile. It pays off on long runs only."""
    lean_memory: bool = True
    """On a CPU with glibc, return large freed blocks to the system at once: `baseline` takes a
    quarter less memory. false: small networks are a tenth faster."""
    winograd: bool = True
    """On a CPU in fp32 with channels_last, compute 3x3 convolutions by Winograd's minimal
    filtering if that is faster. Results are equal up to rounding."""
    native: bool = True
    """With winograd, use C code compiled on this machine, if it has gcc (Linux): small
    networks train twice as fast. Compiling takes seconds, once."""
    threads: int | None = Field(None, ge=1, le=1024)
    """Number of CPU threads of torch. null: torch's choice."""


class Config(Section):
    """Everything that decides what a run computes, and how."""

    seed: int = Field(1, ge=0, le=2**31 - 1)
    """Seed of initial weights, order of images, augmentation and dropout."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to train on. `auto`: cuda, else mps, else cpu."""
    data: DataConfig = DataConfig()
    augment: AugmentConfig = Field(AlbumentationsConfig(), discriminator="form")
    model: ModelConfig = Field(CustomResnetConfig(), discriminator="name")
    optim: OptimConfig = Field(AdamConfig(), discriminator="name")
    schedule: ScheduleConfig = Field(OneCycleConfig(), discriminator="name")
    train: TrainConfig = TrainConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @property
    def eval_size(self) -> int:
        """Image size in pixels at which the network classifies: that of the last training step."""
        until, size = self.train.resolutions[-1] if self.train.resolutions else (0.0, 0)
        return size if until == 1 else self.data.image_size

    @model_validator(mode="after")
    def _cutout_fits(self) -> Config:
        if self.augment.cutout_size > self.data.image_size:
            raise ValueError(
                f"augment.cutout_size {self.augment.cutout_size} is larger than "
                f"data.image_size {self.data.image_size}"
            )
        return self

    @model_validator(mode="after")
    def _workers_have_work(self) -> Config:
        if self.data.workers and self.augment.form != "albumentations":
            raise ValueError(
                f"data.workers has no effect with augment.form {self.augment.form}; it belongs to "
                "albumentations"
            )
        return self
