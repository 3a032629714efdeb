"""Batches of images: augment and normalise a whole batch at a time.

`Pixels` does that to bytes on a device: one gather of whole rows of padded images does the crop,
its (B, H, W, C) layout makes the batches channels_last for free, and nothing makes the host wait
for the device. `InMemoryBatches` keeps a whole split there: no worker processes, no Python per
image. `samtune.data.streaming` does it to what it reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from samtune.data.augmentation import NO_AUGMENTATION, Augmentation, padded
from samtune.data.transforms import (
    color_jitter,
    rand_augment,
    random_resized_crops,
)


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


class Pixels:
    """Images and targets on a device, ready to be cut into batches.

    Args:
        images: uint8 (N, H, W, C).
        targets: (N,), or masks (N, H, W) that move with their images.
        mean, std: per channel, of pixel values in [0, 1].
        is_padded: images and masks have the augmentation's padding around them already. On a CPU
            they are then used where they are, without a copy.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        augmentation: Augmentation = NO_AUGMENTATION,
        is_padded: bool = False,
    ) -> None:
        self.augmentation = augmentation
        masks = targets if targets.dim() == 3 else None
        if not is_padded:
            images = padded(images, augmentation)
            masks = None if masks is None else padded(masks, augmentation)
        border = 2 * augmentation.crop_padding
        height, width = (side - border for side in images.shape[1:3])
        channels = images.shape[3]
        if augmentation.needs_colors and channels not in (1, 3):
            raise ValueError(
                "color_jitter and RandAugment are for 1 or 3 channels, "
                f"got {channels}: set both to 0"
            )
        if augmentation.randaugment_ops and masks is not None:
            raise ValueError("RandAugment would move images away from their masks: set it to 0")
        self._size = height, width, channels
        self._crops = _row_crops(images, width, channels, device)
        self._targets = targets.to(device, non_blocking=True)
        self._mask_crops = None if masks is None else _row_crops(masks, width, 1, device)
        # (x / 255 - mean) / std as one multiplication and one addition, for a row at a time
        scale = 1 / (255 * torch.tensor(std, device=device))
        offset = -torch.tensor(mean, device=device) / torch.tensor(std, device=device)
        self._scale, self._offset = scale.repeat(width), offset.repeat(width)

    def augmented(self, index: Tensor, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """The images at `index` with their targets, changed as `random` says."""
        augmentation, height, device = self.augmentation, self._size[0], self._targets.device
        index = index.to(device, non_blocking=True)
        corners = np.zeros((2, len(index)), dtype=np.int64)
        if augmentation.crop_padding or augmentation.flip:
            corners = random.integers(0, 2 * augmentation.crop_padding + 1, size=(2, len(index)))
        top, left = torch.from_numpy(corners).to(device, non_blocking=True)
        place = index[:, None], top[:, None] + torch.arange(height, device=device), left[:, None]
        rows = self._crops[place]
        targets = self._targets[index] if self._mask_crops is None else self._mask_crops[place]
        if augmentation.flip:
            # By index and not by mask: a mask's size would have to be asked of the device.
            mirrored = torch.from_numpy(np.flatnonzero(random.random(len(index)) < 0.5))
            mirrored = mirrored.to(device, non_blocking=True)
            images = rows.view(len(index), *self._size)
            images[mirrored] = images[mirrored].flip(2)
            if self._mask_crops is not None:
                targets[mirrored] = targets[mirrored].flip(2)
        rows, targets = self._transformed(rows, targets, random)
        return self._cut_out(self._normalised(rows), random), targets

    def plain(self, part: slice) -> tuple[Tensor, Tensor]:
        """A run of images with their targets, as they are."""
        pad, height = self.augmentation.crop_padding, self._size[0]
        inner = part, slice(pad, pad + height), pad
        targets = self._targets[part] if self._mask_crops is None else self._mask_crops[inner]
        return self._normalised(self._crops[inner]), targets

    def _transformed(
        self, rows: Tensor, targets: Tensor, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Rows (B, H, W * C) of bytes and their targets, after what needs whole images."""
        augmentation = self.augmentation
        if augmentation.random_resized_crop == 1 and not augmentation.needs_colors:
            return rows, targets
        images = rows.view(len(rows), *self._size).permute(0, 3, 1, 2)
        if augmentation.random_resized_crop < 1:
            masks = None if self._mask_crops is None else targets
            images, masks = random_resized_crops(
                images, masks, augmentation.random_resized_crop, random
            )
            targets = targets if masks is None else masks
        if augmentation.color_jitter:
            images = color_jitter(images, augmentation.color_jitter, random)
        if augmentation.randaugment_ops:
            images = rand_augment(
                images, augmentation.randaugment_ops, augmentation.randaugment_magnitude, random
            )
        return images.permute(0, 2, 3, 1).reshape(rows.shape), targets

    def _normalised(self, rows: Tensor) -> Tensor:
        """uint8 (B, H, W * C) to float32 (B, C, H, W)."""
        values = rows.float().mul_(self._scale).add_(self._offset)
        return values.view(len(rows), *self._size).permute(0, 3, 1, 2)

    def _cut_out(self, images: Tensor, random: np.random.Generator) -> Tensor:
        size, (height, width, channels) = self.augmentation.cutout, self._size
        if not size:
            return images
        count, device = len(images), images.device

        def covered(length: int, repeats: int = 1) -> np.ndarray[Any, np.dtype[np.bool_]]:
            corner = random.integers(-(size // 2), length - size // 2, size=(count, 1))
            place = np.arange(length).repeat(repeats)
            return (place >= corner) & (place < corner + size)

        applied = random.random((count, 1)) < 0.5
        rows, columns = covered(height) & applied, covered(width, channels)
        square = (
            torch.from_numpy(rows).to(device, non_blocking=True)[:, :, None]
            & torch.from_numpy(columns).to(device, non_blocking=True)[:, None, :]
        )
        values = images.permute(0, 2, 3, 1).view(count, height, width * channels)
        values.masked_fill_(square, 0.0)  # the mean colour
        return images


class InMemoryBatches:
    """`Batches` of a split that is held on the device as a whole; see `Pixels` for the arguments.

    Args:
        batch_size: of all batches but the last one in order.
    """

    def __init__(
        self, images: Tensor, targets: Tensor, *, batch_size: int, **settings: Any
    ) -> None:
        if not len(images):
            raise ValueError("there are no images to make batches of")
        self.batch_size = batch_size
        self._count = len(targets)
        self._pixels = Pixels(images, targets, **settings)

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


def _row_crops(images: Tensor, width: int, channels: int, device: torch.device) -> Tensor:
    """Every crop of every row: (N, H, crops, width * channels), a view without a copy.

    A crop of a row is one stretch of its bytes, `width` pixels long.
    """
    rows = images.to(device, non_blocking=True).reshape(*images.shape[:2], -1)
    return rows.unfold(2, width * channels, channels)
