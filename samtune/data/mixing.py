"""Mixup and CutMix: training images made of two, with both their classes as the target.

They mix whole batches on the device, after augmentation, whatever the batches come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from samtune.data.batches import Batches

STREAM = 1  # apart from the batches' own draws: an image is cropped alike, mixed or not


class MixedBatches:
    """`Batches` whose training targets are shares (B, num_classes) of two classes.

    Each image is mixed with the one before it in its batch, the first with the last, by a share
    that the whole batch draws from Beta(alpha, alpha): mixup takes that share of every pixel (Zhang
    et al. 2018, arXiv:1710.09412), CutMix all pixels outside a box (Yun et al. 2019,
    arXiv:1905.04899). Targets are mixed by the same share.

    Args:
        batches: with targets (B,) of classes.
        mixup, cutmix: each one's alpha, or 0 for never; where neither is, every batch draws which.
    """

    def __init__(
        self, batches: Batches, *, num_classes: int, mixup: float = 0.0, cutmix: float = 0.0
    ) -> None:
        self._batches = batches
        self._num_classes = num_classes
        self._mixup, self._cutmix = mixup, cutmix

    def __len__(self) -> int:
        return len(self._batches)

    def shuffled(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Batches.shuffled`.

        Raises:
            ValueError: the targets are not one class an image.
        """
        random = np.random.default_rng([seed, STREAM])
        for images, classes in self._batches.shuffled(seed):
            if classes.dim() != 1:
                raise ValueError(f"only classes (B,) can be mixed, got {tuple(classes.shape)}")
            yield self._mixed(images, classes, random)

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Batches.in_order`; the targets are classes as ever."""
        return self._batches.in_order()

    def _mixed(
        self, images: Tensor, classes: Tensor, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        cuts = random.random() < 0.5 if self._mixup and self._cutmix else bool(self._cutmix)
        alpha = self._cutmix if cuts else self._mixup
        share = random.beta(alpha, alpha)
        others = images.roll(1, 0)
        if cuts:
            images, share = _with_box_of(images, others, share, random)
        else:
            images = others.lerp_(images, share)
        targets = F.one_hot(classes, self._num_classes).float()
        return images, targets.roll(1, 0).lerp_(targets, share)


def _with_box_of(
    images: Tensor, others: Tensor, share: float, random: np.random.Generator
) -> tuple[Tensor, float]:
    """The images with a box of the others in them, and the share that is their own.

    The box has 1 - share of the area, less what of it lies outside the image.
    """
    height, width = images.shape[-2:]
    half = math.sqrt(1 - share) / 2
    stretches = []
    for side in (height, width):
        middle, reach = int(random.integers(side)), int(half * side)
        stretches.append(slice(max(0, middle - reach), min(side, middle + reach)))
    rows, columns = stretches
    images[:, :, rows, columns] = others[:, :, rows, columns]
    covered = (rows.stop - rows.start) * (columns.stop - columns.start)
    return images, 1 - covered / (height * width)
