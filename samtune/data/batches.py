"""Batches from images held in memory: crop, flip, cut out and normalise a whole batch at a time.

One gather on padded uint8 images does the crop and the flip, on whatever device holds them, and its
(B, H, W, C) layout makes the batches channels_last for free. No worker processes, no Python per
image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
        self._size = images.shape[1], images.shape[2]
        pad = augmentation.crop_padding
        self._images = F.pad(images, (0, 0, pad, pad, pad, pad)).to(device)
        self._targets = targets.to(device)
        # (x / 255 - mean) / std as one multiplication and one addition
        self._scale = 1 / (255 * torch.tensor(std, device=device))
        self._offset = -torch.tensor(mean, device=device) / torch.tensor(std, device=device)

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
            index = order[start : start + size].to(self._images.device)
            yield self._augmented(index, random), self._targets[index]

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in the split's own order, as it is."""
        pad = self.augmentation.crop_padding
        height, width = self._size
        inner = self._images[:, pad : pad + height, pad : pad + width]
        for start in range(0, len(self), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield self._normalised(inner[part]), self._targets[part]

    def _augmented(self, index: Tensor, random: np.random.Generator) -> Tensor:
        augmentation, (height, width), device = self.augmentation, self._size, index.device
        if not (augmentation.crop_padding or augmentation.flip):
            return self._cut_out(self._normalised(self._images[index]), random)

        corners = random.integers(0, 2 * augmentation.crop_padding + 1, size=(2, len(index)))
        top, left = torch.from_numpy(corners).to(device)
        rows = top[:, None] + torch.arange(height, device=device)
        columns = torch.arange(width, device=device).expand(len(index), width)
        if augmentation.flip:
            mirrored = torch.from_numpy(random.random(len(index)) < 0.5).to(device)
            columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
        columns = left[:, None] + columns
        cropped = self._images[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        return self._cut_out(self._normalised(cropped), random)

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
