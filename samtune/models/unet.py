"""U-Net (Ronneberger, Fischer and Brox 2015, arXiv:1505.04597) for segmentation.

    images (B, C, H, W)
      -> 4 x [DoubleConvolution, DownSample]     c, 2c, 4c, 8c channels, halved each time
      -> DoubleConvolution                       16c channels, (H/16, W/16)
      -> 4 x [UpSample, CropAndConcat, DoubleConvolution]   back to c channels
      -> conv 1x1 -> logits (B, num_classes, 16 * floor(H/16), 16 * floor(W/16))

with c the base channels. Where a side is no multiple of 16 the output is smaller than the image;
`center_crop` brings targets to it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from samtune.registry import Count, register_model

STAGES = 4
SMALLEST = 2**STAGES


@register_model("unet", task="segmentation")
def unet(
    *,
    in_channels: int,
    num_classes: int,
    image_size: tuple[int, int] | None = None,
    base_channels: Count = 64,
    batch_norm: bool = False,
) -> UNet:
    """U-Net: one logit a pixel and class (one alone for foreground against background).

    One departure: the 3x3 convolutions are padded, so that 64 pixels give 64 and not a small
    frame's worth less.

    Args:
        base_channels: channels of the first stage, doubled four times on the way down.
        batch_norm: after every 3x3 convolution, which then has no bias; the paper has none.
    """
    if image_size and min(image_size) < SMALLEST:
        size = "x".join(str(side) for side in image_size)
        raise ValueError(f"images must be at least {SMALLEST}x{SMALLEST} pixels, got {size}")
    return UNet(in_channels, num_classes, base_channels, batch_norm)


def center_crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The middle of (..., H, W); an odd remainder is one pixel more at the end."""
    (height, width), (h, w) = x.shape[-2:], size
    top, left = (height - h) // 2, (width - w) // 2
    return x[..., top : top + h, left : left + w]


class UNet(nn.Module):
    """See `unet`."""

    def __init__(
        self, in_channels: int, num_classes: int, base_channels: int, batch_norm: bool
    ) -> None:
        super().__init__()
        widths = [base_channels * 2**i for i in range(STAGES + 1)]
        self.down = nn.ModuleList(
            DoubleConvolution(before, after, batch_norm)
            for before, after in zip([in_channels, *widths], widths[:-1], strict=False)
        )
        self.down_sample = DownSample()
        self.middle = DoubleConvolution(widths[-2], widths[-1], batch_norm)
        wide_first = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up_sample = nn.ModuleList(UpSample(wide, narrow) for wide, narrow in wide_first)
        self.concat = CropAndConcat()
        self.up = nn.ModuleList(
            DoubleConvolution(wide, narrow, batch_norm) for wide, narrow in wide_first
        )
        self.logits = nn.Conv2d(base_channels, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # the paper's: normal with variance 2 / fan-in
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, num_classes, H', W'), multiples of 16."""
        skips = []
        for convolutions in self.down:
            x = convolutions(x)
            skips.append(x)
            x = self.down_sample(x)
        x = self.middle(x)
        for up_sample, convolutions in zip(self.up_sample, self.up, strict=True):
            x = convolutions(self.concat(up_sample(x), skips.pop()))
        logits: Tensor = self.logits(x)
        return logits


class DoubleConvolution(nn.Sequential):
    """Twice a 3x3 convolution, batch norm if wanted, and ReLU; the size unchanged."""

    def __init__(self, in_channels: int, out_channels: int, batch_norm: bool) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers.append(nn.Conv2d(channels, out_channels, 3, padding=1, bias=not batch_norm))
            layers += [nn.BatchNorm2d(out_channels)] if batch_norm else []
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class DownSample(nn.MaxPool2d):
    """Halves both sides, rounded down."""

    def __init__(self) -> None:
        super().__init__(2)


class UpSample(nn.ConvTranspose2d):
    """Doubles both sides."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 2, stride=2)


class CropAndConcat(nn.Module):
    """Puts the middle of what was skipped behind what came up."""

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        """(B, C, H, W) and (B, D, >= H, >= W) to (B, C + D, H, W)."""
        return torch.cat([x, center_crop(skipped, (x.shape[2], x.shape[3]))], dim=1)
