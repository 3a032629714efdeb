"""Wide residual networks (Zagoruyko and Komodakis 2016, arXiv:1605.07146).

    images (B, C, H, W)
      -> conv 3x3, 16 channels
      -> Block, 16k channels           (H, W)
      -> Block, 32k channels           (H/2, W/2)
      -> Block, 64k channels           (H/4, W/4)
      -> batch norm, ReLU, mean over all pixels -> logits (B, num_classes)

with k the width factor. A Block holds n = (depth - 4) / 6 units of two convolutions each, the first
of them a DownsampleUnit. Pre-activation throughout: batch norm and ReLU come before a convolution.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from samtune.registry import Count, Share, register_model

DEEPEST = 1204  # two hundred units a stage; the paper's deepest has twelve


@register_model("wide_resnet")
def wide_resnet(
    *,
    in_channels: int,
    num_classes: int,
    depth: int = 28,
    width_factor: Count = 10,
    dropout: Share = 0.0,
) -> WideResNet:
    """A wide residual network for images of any size.

    Depth counts as in the paper: 6n + 4 with n units a stage (a widely copied implementation
    builds n + 1). One departure: a stage whose first unit keeps the channels (width factor 1 in
    stage one) has a 1x1 convolution on the shortcut too, 256 parameters more than the identity.

    Args:
        depth: number of convolutions and linear layers: 10, 16, 22, 28, ... (6n + 4).
        width_factor: multiplies the channels of every stage; 1 is a plain pre-activation ResNet.
        dropout: probability between the two convolutions of a unit.
    """
    return WideResNet(in_channels, num_classes, depth, width_factor, dropout)


@register_model("wrn_40_4")
def wrn_40_4(*, in_channels: int, num_classes: int, dropout: Share = 0.0) -> WideResNet:
    """The paper's WRN-40-4: six units a stage, 8.9 million parameters.

    Args:
        dropout: probability between the two convolutions of a unit.
    """
    return WideResNet(in_channels, num_classes, 40, 4, dropout)


class WideResNet(nn.Sequential):
    """See `wide_resnet`; logits of shape (B, num_classes)."""

    def __init__(
        self, in_channels: int, num_classes: int, depth: int, width_factor: int, dropout: float
    ) -> None:
        if depth < 10 or (depth - 4) % 6:
            lower = max(10, depth - (depth - 4) % 6)
            near = f"{lower} or {lower + 6}" if depth > 10 else "10"
            raise ValueError(f"depth must be 10, 16, 22, 28, ... (6n + 4), got {depth}; try {near}")
        if depth > DEEPEST:
            raise ValueError(f"depth must be at most {DEEPEST}, got {depth}")
        units = (depth - 4) // 6
        narrow, middle, wide = (16 * width_factor, 32 * width_factor, 64 * width_factor)
        super().__init__(
            _conv3x3(in_channels, 16),
            Block(16, narrow, 1, units, dropout),
            Block(narrow, middle, 2, units, dropout),
            Block(middle, wide, 2, units, dropout),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),  # the paper's 8x8 pooling at 32x32, and right at every size
            nn.Flatten(),
            nn.Linear(wide, num_classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)


class Block(nn.Sequential):
    """One stage: a unit that changes channels and size, then units that keep both."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, units: int, dropout: float
    ) -> None:
        super().__init__(
            DownsampleUnit(in_channels, out_channels, stride, dropout),
            *(BasicUnit(out_channels, dropout) for _ in range(units - 1)),
        )


class BasicUnit(nn.Module):
    """x + conv(dropout(relu(bn(conv(relu(bn(x)))))), the shape unchanged."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            _conv3x3(channels, channels),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            _conv3x3(channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        y: Tensor = x + self.residual(x)
        return y


class DownsampleUnit(nn.Module):
    """A unit with a 1x1 convolution as shortcut; both branches see the activated input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.residual = nn.Sequential(
            _conv3x3(in_channels, out_channels, stride),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            _conv3x3(out_channels, out_channels),
        )
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H / stride, W / stride), rounded up."""
        x = F.relu(self.norm(x), inplace=True)
        y: Tensor = self.residual(x) + self.shortcut(x)
        return y


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
