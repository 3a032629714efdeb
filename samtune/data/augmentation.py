"""What may be done to training images, and the types of the settings that say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

HIGHEST_MAGNITUDE = 30  # torchvision's scale of RandAugment

Padding = Literal["zero", "reflect"]
CropArea = Annotated[float, Field(gt=0, le=1, strict=True)]
Strength = Annotated[float, Field(ge=0, le=1, strict=True)]
Magnitude = Annotated[int, Field(ge=0, le=HIGHEST_MAGNITUDE, strict=True)]


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training images, and to masks with them; the default is none.

    They happen in this order: crop, flip, resized crop, colours, RandAugment, cutout.

    Attributes:
        crop_padding: pad each side by this many pixels, then crop back at a random place.
        flip: mirror left to right with probability 1/2.
        cutout: side of a square set to the mean colour with probability 1/2 (DeVries and Taylor
            2017, arXiv:1708.04552); its corner may lie outside, so that the border is cut too.
            Masks stay as they are.
        padding: what the padding shows: black, or the image mirrored at its border.
        random_resized_crop: the least share of the image's area that a crop shows, which is then
            resized to the whole (Szegedy et al. 2015, arXiv:1409.4842); 1 is off.
        color_jitter: brightness, contrast and saturation each change by a factor of up to 1 plus
            or minus this.
        randaugment_ops: how many operations of RandAugment follow each other (Cubuk et al. 2020,
            arXiv:1909.13719). Not for masks: some of the operations move the image.
        randaugment_magnitude: theirs, 0 to 30.

    Raises:
        ValueError: a share or a magnitude lies outside its range.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    padding: Padding = "zero"
    random_resized_crop: float = 1.0
    color_jitter: float = 0.0
    randaugment_ops: int = 0
    randaugment_magnitude: int = 9

    def __post_init__(self) -> None:
        if not 0 < self.random_resized_crop <= 1:
            raise ValueError(
                "random_resized_crop must be a share above 0 and at most 1, "
                f"got {self.random_resized_crop}"
            )
        if not 0 <= self.color_jitter <= 1:
            raise ValueError(f"color_jitter must be from 0 to 1, got {self.color_jitter}")
        if not 0 <= self.randaugment_magnitude <= HIGHEST_MAGNITUDE:
            raise ValueError(
                f"randaugment_magnitude must be from 0 to {HIGHEST_MAGNITUDE}, "
                f"got {self.randaugment_magnitude}"
            )

    @property
    def needs_colors(self) -> bool:
        """Whether it is for grey and colour images alone."""
        return bool(self.color_jitter or self.randaugment_ops)


NO_AUGMENTATION = Augmentation()


def padded(images: Tensor, augmentation: Augmentation) -> Tensor:
    """(N, H, W, ...) with a border of `crop_padding` on each side of H and W."""
    pad = augmentation.crop_padding
    if not pad:
        return images
    height, width = images.shape[1:3]
    if augmentation.padding == "reflect":
        if pad >= min(height, width):
            raise ValueError(
                f"crop_padding must be below the image's {min(height, width)} pixels to reflect, "
                f"got {pad}"
            )
        rows, columns = (
            torch.from_numpy(np.pad(np.arange(side), pad, mode="reflect"))
            for side in (height, width)
        )
        return images[:, rows][:, :, columns]
    framed = images.new_zeros(len(images), height + 2 * pad, width + 2 * pad, *images.shape[3:])
    framed[:, pad : pad + height, pad : pad + width] = images
    return framed
