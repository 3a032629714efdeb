"""Batches from images held in memory: crop, flip, cut out and normalise a whole batch at a time.

One gather of whole rows of padded uint8 images does the crop, on whatever device holds them, and
the (B, H, W, C) layout makes the batches channels_last for free. No worker processes, no Python per
image, and nothing that makes the host wait for the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training images; the default is none.

    Attributes:
        crop_padding: pad each side by this many black pixels, then crop back at a random place.
        flip: mirror left to right with probability 1/2.
        cutout: side of a square set to the mean colour with probability 1/2 (DeVries and Taylor
            2017, arXiv:1708.04552); its corner may lie outside, so that the border is cut as often.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0


class InMemoryBatches:
    """Normalised batches of float32 images (B, C, H, W) with their targets.

    Args:
        images: uint8 (N, H, W, C).
        targets: (N, ...).
        mean, std: per channel, of pixel values in [0, 1].
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
        self.augmentation = augmentation
        self._size = images.shape[1], images.shape[2], images.shape[3]
        pad, (_, width, channels) = augmentation.crop_padding, self._size
        padded = F.pad(images, (0, 0, pad, pad, pad, pad)).to(device)
        # Rows of bytes: every crop of a row is one stretch of it, `width` pixels long.
        rows = padded.reshape(*padded.shape[:2], -1)
        self._crops = rows.unfold(2, width * channels, channels)
        self._targets = targets.to(device)
        # (x / 255 - mean) / std as one multiplication and one addition, for a row at a time
        scale = 1 / (255 * torch.tensor(std, device=device))
        offset = -torch.tensor(mean, device=device) / torch.tensor(std, device=device)
        self._scale, self._offset = scale.repeat(width), offset.repeat(width)

    def __len__(self) -> int:
        return len(self._targets)

    def shuffled(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in random order, augmented; everything is drawn from `seed`.

        The last batch is left out where it is not full: every step then weighs the same, shapes
        are static and batch norm never meets a single image. A split smaller than one batch is one.
        """
        random = np.random.default_rng(seed)
        order = torch.from_numpy(random.permutation(len(self)))
        size = min(self.batch_size, len(self))
        for start in range(0, len(self) - size + 1, size):
            index = order[start : start + size].to(self._targets.device)
            yield self._augmented(index, random), self._targets[index]

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in the split's own order, as it is."""
        pad, height = self.augmentation.crop_padding, self._size[0]
        inner = self._crops[:, pad : pad + height, pad]
        for start in range(0, len(self), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield self._normalised(inner[part]), self._targets[part]

    def _augmented(self, index: Tensor, random: np.random.Generator) -> Tensor:
        augmentation, height, device = self.augmentation, self._size[0], index.device
        corners = np.zeros((2, len(index)), dtype=np.int64)
        if augmentation.crop_padding or augmentation.flip:
            corners = random.integers(0, 2 * augmentation.crop_padding + 1, size=(2, len(index)))
        top, left = torch.from_numpy(corners).to(device)
        rows = top[:, None] + torch.arange(height, device=device)
        cropped = self._crops[index[:, None], rows, left[:, None]]
        if augmentation.flip:
            # By index and not by mask: a mask's size would have to be asked of the device.
            mirrored = torch.from_numpy(np.flatnonzero(random.random(len(index)) < 0.5)).to(device)
            images = cropped.view(len(index), *self._size)
            images[mirrored] = images[mirrored].flip(2)
        return self._cut_out(self._normalised(cropped), random)

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
            torch.from_numpy(rows).to(device)[:, :, None]
            & torch.from_numpy(columns).to(device)[:, None, :]
        )
        values = images.permute(0, 2, 3, 1).view(count, height, width * channels)
        values.masked_fill_(square, 0.0)  # the mean colour
        return images
