"""Residual networks (He et al. 2015, arXiv:1512.03385).

    images (B, C, H, W)
      -> stem: convolution, batch norm, ReLU (and max pooling)   reduced 1, 2 or 4 times
      -> stages of residual blocks; each but the first halves the map (or see `layout`)
      -> mean over all pixels -> logits (B, num_classes)

Blocks are two 3x3 convolutions wide, or, as a bottleneck, 1x1 - 3x3 - 1x1. The bottleneck's stride
is in its 3x3 convolution, as in torchvision ("v1.5"), not in the first 1x1 as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from samtune.registry import Count, register_model

Layout = Literal["paper", "labml"]


@register_model("resnet")
def resnet(
    *,
    in_channels: int,
    num_classes: int,
    blocks: Sequence[Count] = (3, 3, 3),
    channels: Sequence[Count] = (16, 32, 64),
    bottlenecks: Sequence[Count] | None = None,
    first_kernel_size: Count = 3,
    stem_reduction: Literal[1, 2, 4] = 1,
    layout: Layout = "paper",
) -> ResNet:
    """A residual network of any number of stages; the default is the paper's CIFAR ResNet-20.

    ResNet-18 for ImageNet: blocks [2, 2, 2, 2], channels [64, 128, 256, 512], first_kernel_size 7,
    stem_reduction 4. ResNet-50: blocks [3, 4, 6, 3], bottlenecks [64, 128, 256, 512], channels
    [256, 512, 1024, 2048]. One departure: a shortcut that changes shape is a 1x1 convolution with
    batch norm (the paper's option B) on CIFAR too, where the paper pads with zeros (option A).

    Args:
        blocks: residual blocks of each stage.
        channels: channels that leave each stage; as many numbers as `blocks`.
        bottlenecks: channels inside each stage's bottleneck blocks; null for plain blocks.
        first_kernel_size: of the first convolution; odd.
        stem_reduction: 1 keeps the image's size, 2 halves it in the first convolution, 4 adds a
            max pooling, as for ImageNet.
        layout: labml is that of labml's annotated implementation, which has `stem_reduction` 2:
            of all blocks the very first alone halves the map, convolutions have biases and torch's
            own initial weights, and the stem is as wide as the first stage and has no ReLU.
    """
    for name, values in (("channels", channels), ("bottlenecks", bottlenecks)):
        if values is not None and len(values) != len(blocks):
            raise ValueError(
                f"{name} must have one number for each stage, as blocks has: "
                f"{len(blocks)} numbers, got {len(values)}"
            )
    if not blocks:
        raise ValueError("blocks must name at least one stage")
    if first_kernel_size % 2 == 0:
        raise ValueError(f"first_kernel_size must be odd, got {first_kernel_size}")
    return ResNet(
        in_channels,
        num_classes,
        blocks,
        channels,
        bottlenecks,
        first_kernel_size,
        stem_reduction,
        layout,
    )


class ResNet(nn.Sequential):
    """See `resnet`; logits of shape (B, num_classes)."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        blocks: Sequence[int],
        channels: Sequence[int],
        bottlenecks: Sequence[int] | None,
        first_kernel_size: int,
        stem_reduction: int,
        layout: Layout,
    ) -> None:
        paper = layout == "paper"
        width = ((bottlenecks if paper else None) or channels)[0]
        first_stride = 1 if stem_reduction == 1 else 2
        stem = _conv_norm(in_channels, width, first_kernel_size, first_stride, bias=not paper)
        if paper:
            stem.append(nn.ReLU(inplace=True))
        if stem_reduction == 4:
            stem.append(nn.MaxPool2d(3, 2, padding=1))
        stages = []
        for i, count in enumerate(blocks):
            for j in range(count):
                halves = not j and (i > 0 if paper else i == 0)
                inner = bottlenecks[i] if bottlenecks else None
                stages.append(_block(width, inner, channels[i], 1 + halves, bias=not paper))
                width = channels[i]
        super().__init__(
            *stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)
        )
        for module in self.modules() if paper else ():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ResidualBlock(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x))))))."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, bias: bool = False
    ) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_conv_norm(in_channels, out_channels, 3, stride, bias=bias),
            nn.ReLU(inplace=True),
            *_conv_norm(out_channels, out_channels, 3, bias=bias),
        )
        self.shortcut = _shortcut(in_channels, out_channels, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H / stride, W / stride), rounded up."""
        return F.relu(self.residual(x) + self.shortcut(x), inplace=True)


class BottleneckResidualBlock(nn.Module):
    """A residual block that works in fewer channels than it takes and gives."""

    def __init__(
        self, in_channels: int, inner: int, out_channels: int, stride: int, *, bias: bool = False
    ) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_conv_norm(in_channels, inner, 1, bias=bias),
            nn.ReLU(inplace=True),
            *_conv_norm(inner, inner, 3, stride, bias=bias),
            nn.ReLU(inplace=True),
            *_conv_norm(inner, out_channels, 1, bias=bias),
        )
        self.shortcut = _shortcut(in_channels, out_channels, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) to (B, out, H / stride, W / stride), rounded up."""
        return F.relu(self.residual(x) + self.shortcut(x), inplace=True)


def _block(
    in_channels: int, inner: int | None, out_channels: int, stride: int, *, bias: bool
) -> nn.Module:
    if inner is None:
        return ResidualBlock(in_channels, out_channels, stride, bias=bias)
    return BottleneckResidualBlock(in_channels, inner, out_channels, stride, bias=bias)


def _shortcut(in_channels: int, out_channels: int, stride: int, *, bias: bool) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(*_conv_norm(in_channels, out_channels, 1, stride, bias=bias))


def _conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, bias: bool
) -> list[nn.Module]:
    # A bias is for labml's layout alone: the batch norm that follows takes it away again.
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
    return [conv, nn.BatchNorm2d(out_channels)]
