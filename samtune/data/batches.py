"""Batches of images: crop, flip, cut out and normalise a whole batch at a time.

`Pixels` does that to bytes on a device: one gather on padded images crops and flips, and its
(B, H, W, C) layout makes the batches channels_last for free. `InMemoryBatches` keeps a whole split
there: no worker processes, no Python per image. `samtune.data.streaming` does it to what it reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

Padding = Literal["zero", "reflect"]


class Batches(Protocol):
    """A split as batches of normalised float32 images (B, C, H, W) with their targets."""

    def __len__(self) -> int:
        """How many images."""
        ...

    def shuffled(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in random order, augmented; everything is drawn from `seed`.

        The last batch is left out where it is not full: every step then weighs the same, shapes
        are static and batch norm never meets a single image. A split smaller than one batch is one.
        """
        ...

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in the split's own order, as it is."""
        ...


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training images, and to masks with them; the default is none.

    Attributes:
        crop_padding: pad each side by this many pixels, then crop back at a random place.
        flip: mirror left to right with probability 1/2.
        cutout: side of a square set to the mean colour with probability 1/2 (DeVries and Taylor
            2017, arXiv:1708.04552); its corner may lie outside, so that the border is cut as often.
            Masks stay as they are.
        padding: what the padding shows: black, or the image mirrored at its border.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    padding: Padding = "zero"


class Pixels:
    """Images and targets on a device, ready to be cut into batches.

    Args:
        images: uint8 (N, H, W, C).
        targets: (N,), or masks (N, H, W) that move with their images.
        mean, std: per channel, of pixel values in [0, 1].
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        augmentation: Augmentation = Augmentation(),
    ) -> None:
        self.augmentation = augmentation
        self._size = images.shape[1], images.shape[2]
        self._are_masks = targets.dim() == 3
        self._images = _padded(images, augmentation).to(device, non_blocking=True)
        self._targets = _padded(targets, augmentation) if self._are_masks else targets
        self._targets = self._targets.to(device, non_blocking=True)
        # (x / 255 - mean) / std as one multiplication and one addition
        self._scale = 1 / (255 * torch.tensor(std, device=device))
        self._offset = -torch.tensor(mean, device=device) / torch.tensor(std, device=device)

    def augmented(self, index: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The images at `index` with their targets, changed as `random` says."""
        augmentation, (height, width) = self.augmentation, self._size
        index = index.to(self._images.device)
        if not (augmentation.crop_padding or augmentation.flip):
            inputs = self._normalised(self._images[index])
            return self._cut_out(inputs, random), self._targets[index]

        corners = random.integers(0, 2 * augmentation.crop_padding + 1, size=(2, len(index)))
        top, left = torch.from_numpy(corners).to(index.device)
        rows = top[:, None] + torch.arange(height, device=index.device)
        columns = torch.arange(width, device=index.device).expand(len(index), width)
        if augmentation.flip:
            mirrored = torch.from_numpy(random.random(len(index)) < 0.5).to(index.device)
            columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
        columns = left[:, None] + columns
        place = index[:, None, None], rows[:, :, None], columns[:, None, :]
        inputs = self._normalised(self._images[place])
        targets = self._targets[place] if self._are_masks else self._targets[index]
        return self._cut_out(inputs, random), targets

    def plain(self, part: slice) -> tuple[Tensor, Tensor]:
        """A run of images with their targets, as they are."""
        pad, (height, width) = self.augmentation.crop_padding, self._size
        inner = part, slice(pad, pad + height), slice(pad, pad + width)
        targets = self._targets[inner] if self._are_masks else self._targets[part]
        return self._normalised(self._images[inner]), targets

    def _normalised(self, images: Tensor) -> Tensor:
        return (images * self._scale + self._offset).permute(0, 3, 1, 2)

    def _cut_out(self, images: Tensor, random: np.random.Generator) -> Tensor:
        size = self.augmentation.cutout
        if not size:
            return images
        count, _, height, width = images.shape

        def covered(length: int) -> Tensor:
            corner = random.integers(-(size // 2), length - size // 2, size=(count, 1))
            place = np.arange(length)
            return torch.from_numpy((place >= corner) & (place < corner + size)).to(images.device)

        applied = torch.from_numpy(random.random(count) < 0.5).to(images.device)
        square = covered(height)[:, :, None] & covered(width)[:, None, :] & applied[:, None, None]
        return images.masked_fill_(square[:, None], 0.0)


class InMemoryBatches:
    """`Batches` of a split that is held on the device as a whole; see `Pixels` for the arguments.

    Args:
        batch_size: of all batches but the last one in order.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
        device: torch.device,
        augmentation: Augmentation = Augmentation(),
    ) -> None:
        if not len(images):
            raise ValueError("there are no images to make batches of")
        self.batch_size = batch_size
        self._count = len(targets)
        self._pixels = Pixels(
            images, targets, mean=mean, std=std, device=device, augmentation=augmentation
        )

    def __len__(self) -> int:
        return self._count

    def shuffled(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Batches.shuffled`."""
        random = np.random.default_rng(seed)
        for index in shuffled_indices(len(self), self.batch_size, random):
            yield self._pixels.augmented(index, random)

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Batches.in_order`."""
        for start in range(0, len(self), self.batch_size):
            yield self._pixels.plain(slice(start, start + self.batch_size))


def shuffled_indices(count: int, batch_size: int, random: np.random.Generator) -> Iterator[Tensor]:
    """Full batches of 0 ... count - 1 in random order; one smaller batch where that is all."""
    order = torch.from_numpy(random.permutation(count))
    size = min(batch_size, count)
    for start in range(0, count - size + 1, size):
        yield order[start : start + size]


def _padded(images: Tensor, augmentation: Augmentation) -> Tensor:
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
    padded = images.new_zeros(len(images), height + 2 * pad, width + 2 * pad, *images.shape[3:])
    padded[:, pad : pad + height, pad : pad + width] = images
    return padded
