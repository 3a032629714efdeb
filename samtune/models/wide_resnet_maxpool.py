"""A simplified wide ResNet that halves its maps by max pooling (NVIDIA DLI, NRIS "Olivia" course).

    images (B, C, H, W)
      -> CbrBlock, 16 channels
      -> 2 ConvBlocks, 160 channels    (H, W)      -> max pool
      -> 2 ConvBlocks, 320 channels    (H/2, W/2)  -> max pool
      -> 2 ConvBlocks, 640 channels    (H/4, W/4)  -> mean over all pixels
      -> logits (B, num_classes)

As wide as WRN-16-10 (Zagoruyko and Komodakis 2016, arXiv:1605.07146) and about its size, but with
batch norm and ReLU after each convolution and no activation after the sum.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from samtune.registry import Count, Share, register_model

STEM_CHANNELS = 16
POOLED = 7


@register_model("wide_resnet_maxpool")
def wide_resnet_maxpool(
    *,
    in_channels: int,
    num_classes: int,
    image_size: tuple[int, int] | None = None,
    width_factor: Count = 10,
    dropout: Share = 0.01,
    pooling: Literal["all", "7x7"] = "all",
) -> WideResNetMaxPool:
    """A post-activation wide ResNet with max pooling between its stages.

    One departure: the last pooling is the mean over the whole map, so that every size from 4
    pixels works. The original averages the first 7x7 places, which drops the last row and
    column of a CIFAR map; `pooling: 7x7` does that, and refuses what it cannot take.

    Args:
        width_factor: channels of the stages are 16, 32 and 64 times this; 10 is the original.
        dropout: probability between the two convolutions of a block.
        pooling: what the classifier sees the mean of: the whole last map, or its first 7x7 places.
    """
    if image_size and min(image_size) < 4:
        raise ValueError(f"images must be at least 4x4 pixels, got {_text(image_size)}")
    if pooling == "7x7" and image_size and not all(28 <= side < 56 for side in image_size):
        raise ValueError(
            f"pooling '7x7' takes images of 28 to 55 pixels, got {_text(image_size)}; "
            "pooling 'all' takes every size"
        )
    return WideResNetMaxPool(in_channels, num_classes, width_factor, dropout, pooling)


class WideResNetMaxPool(nn.Sequential):
    """See `wide_resnet_maxpool`; logits of shape (B, num_classes)."""

    def __init__(
        self, in_channels: int, num_classes: int, width_factor: int, dropout: float, pooling: str
    ) -> None:
        narrow, middle, wide = (16 * width_factor, 32 * width_factor, 64 * width_factor)
        super().__init__(
            CbrBlock(in_channels, STEM_CHANNELS),
            ConvBlock(STEM_CHANNELS, narrow, dropout),
            ConvBlock(narrow, narrow, dropout),
            nn.MaxPool2d(2),
            ConvBlock(narrow, middle, dropout),
            ConvBlock(middle, middle, dropout),
            nn.MaxPool2d(2),
            ConvBlock(middle, wide, dropout),
            ConvBlock(wide, wide, dropout),
            nn.AvgPool2d(POOLED) if pooling == "7x7" else nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(wide, num_classes),
        )


class CbrBlock(nn.Sequential):
    """Convolution, batch norm, ReLU; the size unchanged."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class ConvBlock(nn.Module):
    """x + cbr(dropout(cbr(x))), with a 1x1 convolution on x where the channels change."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            CbrBlock(in_channels, out_channels),
            nn.Dropout(dropout),
            CbrBlock(out_channels, out_channels),
        )
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H, W)."""
        y: Tensor = self.residual(x) + self.shortcut(x)
        return y


def _text(image_size: tuple[int, int]) -> str:
    return "x".join(str(side) for side in image_size)
