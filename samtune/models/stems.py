"""First layers made for ImageNet, where images are small or not of three channels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Stem = Literal["auto", "imagenet", "small"]

SMALL = 64
"""Below this many pixels a side, a first layer made for ImageNet leaves too little to see."""
LARGEST_STRIDE = 4  # beyond it patches are cut, whose number is fixed elsewhere in the model
MOST_CONVOLUTIONS = 3  # of a stem; a pooling after more of them is no part of it


def are_small(image_size: tuple[int, int] | None) -> bool:
    """Whether images of this size want a stem that keeps them as large as they are."""
    return image_size is not None and min(image_size) < SMALL


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """The path and the convolution that sees the image; None where there is none."""
    found = ((path, m) for path, m in model.named_modules() if isinstance(m, nn.Conv2d))
    return next(found, None)


def shrinks(conv: nn.Conv2d) -> bool:
    """Whether it makes images smaller without cutting them into patches."""
    return 1 < max(conv.stride) <= LARGEST_STRIDE


def cuts_patches(conv: nn.Conv2d) -> bool:
    """Whether it makes a fixed number of patches of an image."""
    return max(conv.stride) > LARGEST_STRIDE


def adapt(conv: nn.Conv2d, in_channels: int, *, small: bool) -> None:
    """Gives a first convolution other channels, or 3x3 kernels with stride 1, and fresh weights.

    In place: libraries have convolutions of their own, with more to them than torch's.
    """
    if small:
        conv.kernel_size, conv.stride = (3, 3), (1, 1)
        if not getattr(conv, "same_pad", False):  # timm's, which pad as much as the size wants
            conv.padding = (1, 1)
    conv.in_channels = in_channels
    shape = (conv.out_channels, in_channels // conv.groups, *conv.kernel_size)
    conv.weight = nn.Parameter(torch.empty(shape, device=conv.weight.device))
    conv.reset_parameters()


def first_pooling(model: nn.Module, *, of_stem: bool) -> str | None:
    """The path of the first max pooling.

    Args:
        of_stem: only one that ends the stem: stages and blocks are numbered, the stem is not.
    """
    convolutions = 0
    for path, module in model.named_modules():
        convolutions += isinstance(module, nn.Conv2d)
        if isinstance(module, nn.MaxPool2d):
            numbered = any(part.isdigit() for part in path.split("."))
            ends_stem = convolutions <= MOST_CONVOLUTIONS and not numbered
            return path if ends_stem or not of_stem else None
    return None


def fitted(kernels: Tensor, in_channels: int) -> Tensor:
    """Pretrained kernels (out, 3, h, w) for one channel: added up over the colours.

    A grey image then gives what it gives as red, green and blue alike. Three stay as they are.

    Raises:
        ValueError: the images are neither in colour nor grey.
    """
    if in_channels == kernels.shape[1]:
        return kernels
    if in_channels != 1:
        raise ValueError(f"pretrained weights are for 3 channels or 1, got {in_channels}")
    return kernels.sum(1, keepdim=True)
