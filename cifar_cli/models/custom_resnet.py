"""The course project's network: a ResNet of eight convolutions with two residual pairs.

Structure after David Page's "How to Train Your ResNet" (https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/),
in the variant of ERA V1, session 10.
"""

from __future__ import annotations

from torch import Tensor, nn

from cifar_cli.models.speed_resnet import resized


class ConvBlock(nn.Sequential):
    """Convolution 3x3 with reflected border, [max-pool 2], batch norm, ReLU, dropout.

    (B, in_channels, H, W) to (B, out_channels, H, W), or to half of H and W if pooled.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, pool: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode="reflect", bias=False),
            *([nn.MaxPool2d(2)] if pool else []),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )


class ResidualPair(nn.Module):
    """Two convolution blocks with a shortcut around both: x + block(block(x))."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, dropout=dropout)
        self.second = ConvBlock(channels, channels, dropout=dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        out: Tensor = x + self.second(self.first(x))
        return out


class ResidualLayer(nn.Module):
    """A pooled convolution block that doubles the channels, then a residual pair."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.pooled = ConvBlock(in_channels, out_channels, pool=True, dropout=dropout)
        self.residual = ResidualPair(out_channels, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / 2, W / 2)."""
        out: Tensor = self.residual(self.pooled(x))
        return out


class CustomResnet(nn.Module):
    """The network of the `baseline` recipe: 6,573,120 parameters at width 64 and ten classes.

    Args:
        num_classes: Number of logits.
        width: Channels of the prep layer; the layers after it have 2, 4 and 8 times as many.
        dropout: Dropout probability in the prep layer and in layer 2.
        residual_dropout: Dropout probability in layers 1 and 3.
        image_size: Side of the images in pixels, a multiple of 8; the last pooling covers what
            three halvings leave of it. Images of other sides, from 16, are pooled as a whole too.
        eval_size: Side to which images are resized in evaluation mode; None: as they are.
    """

    def __init__(
        self,
        num_classes: int = 10,
        width: int = 64,
        dropout: float = 0.02,
        residual_dropout: float = 0.05,
        image_size: int = 32,
        eval_size: int | None = None,
    ) -> None:
        super().__init__()
        self.eval_size = eval_size
        self.prep = ConvBlock(3, width, dropout=dropout)
        self.layer1 = ResidualLayer(width, 2 * width, residual_dropout)
        self.layer2 = ConvBlock(2 * width, 4 * width, pool=True, dropout=dropout)
        self.layer3 = ResidualLayer(4 * width, 8 * width, residual_dropout)
        self.pool = nn.MaxPool2d(image_size // 8)
        self.classifier = nn.Linear(8 * width, num_classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images, float (B, 3, S, S), to logits, float (B, num_classes)."""
        if self.eval_size and not self.training:
            images = resized(images, self.eval_size)
        x = self.layer3(self.layer2(self.layer1(self.prep(images))))
        is_whole = x.shape[2:] == (self.pool.kernel_size, self.pool.kernel_size)
        pooled = self.pool(x).flatten(1) if is_whole else x.flatten(2).max(2).values
        logits: Tensor = self.classifier(pooled)
        return logits
