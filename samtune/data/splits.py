"""What a dataset is to the rest of samtune: three splits, of which the test split stays locked."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from samtune.data.augmentation import NO_AUGMENTATION, Augmentation, padded
from samtune.data.batches import Batches, InMemoryBatches
from samtune.data.mixing import MixedBatches
from samtune.data.streaming import ImageFiles, StreamedBatches
from samtune.errors import SamtuneError


@dataclass(frozen=True)
class Images:
    """Images held in memory with one target each.

    Attributes:
        images: uint8, shape (N, H, W, C).
        targets: int64 class indices, shape (N,), or masks as uint8, shape (N, H, W).
        border: how many pixels of padding images and masks have on each side, not counted in
            their size.
    """

    images: Tensor
    targets: Tensor
    border: int = 0

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise ValueError(f"images must be uint8 (N, H, W, C), got {tuple(self.images.shape)}")
        if len(self.images) != len(self.targets):
            raise ValueError(f"{len(self.images)} images but {len(self.targets)} targets")
        if self.targets.dim() == 3 and self.targets.shape[1:] != self.images.shape[1:3]:
            raise ValueError("masks must have the size of their images")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[1] - 2 * self.border, self.images.shape[2] - 2 * self.border

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return self.images.shape[3]

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of each channel's pixels, of values in [0, 1].

        From sums of whole numbers, so that they are the same on every machine.
        """
        pixels = self.images.flatten(0, 2).long()
        count = len(pixels)
        sums, squares = pixels.sum(0).tolist(), pixels.square().sum(0).tolist()
        means = tuple(total / count / 255 for total in sums)
        spread = [count * square - total**2 for total, square in zip(sums, squares, strict=True)]
        return means, tuple(math.sqrt(n) / count / 255 for n in spread)

    def padded(self, augmentation: Augmentation) -> Images:
        """The same images with the padding that the augmentation crops from."""
        targets = self.targets
        if targets.dim() == 3:
            targets = padded(targets, augmentation)
        images = padded(self.images, augmentation)
        return replace(self, images=images, targets=targets, border=augmentation.crop_padding)

    def joined(self, other: Images) -> Images:
        """These images, then others of the same size; borders must be alike."""
        if self.border != other.border:
            raise ValueError(f"borders of {self.border} and {other.border} pixels do not join")
        images = torch.cat([self.images, other.images])
        return replace(self, images=images, targets=torch.cat([self.targets, other.targets]))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Tensor) -> Images:
        return Images(self.images[index], self.targets[index], self.border)

    def __reduce__(self) -> tuple[Any, ...]:
        # As arrays, which pickle can leave where they are for processes that share memory; in
        # order, or every process would make a copy that is.
        images, targets = self.images.contiguous(), self.targets.contiguous()
        return _from_arrays, (images.numpy(), targets.numpy(), self.border)


def _from_arrays(images: Any, targets: Any, border: int) -> Images:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return Images(torch.from_numpy(images), torch.from_numpy(targets), border)


Split = Images | ImageFiles


@dataclass(frozen=True)
class DataSplits:
    """A dataset ready for training.

    Attributes:
        num_classes: of an image, or of a pixel; 1 is a mask of foreground.
        train, val: in memory, or as files that are streamed.
        open_test: reads the test split; `load_dataset` locks it (`samtune.data.lock`).
        mean, std: per channel, of pixel values in [0, 1].
        augmentation: what is done to training batches.
        classes: their names in order; empty where the data set knows none.
    """

    task: str
    num_classes: int
    train: Split
    val: Split
    open_test: Callable[[], Split] = field(repr=False)
    mean: Sequence[float]
    std: Sequence[float]
    augmentation: Augmentation = NO_AUGMENTATION
    classes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if len(self.classes) not in (0, self.num_classes):
            raise ValueError(f"{self.num_classes} classes but {len(self.classes)} names of classes")

    @property
    def in_channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return self.train.channels

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.train.size

    def to_share(self) -> DataSplits:
        """The training and validation splits, ready for many processes to use without a copy.

        The test split stays behind: opening it raises a RuntimeError.
        """
        train = self.train
        if isinstance(train, Images) and not train.border:
            train = train.padded(self.augmentation)
        return replace(self, train=train, open_test=_stays_locked)

    def without_images(self) -> DataSplits:
        """How many images there are, and of what kind, for who gets batches from another process.

        The splits are files that cannot be read.
        """
        train, val = (
            ImageFiles([Path()] * len(split), split.size, channels=split.channels)
            for split in (self.train, self.val)
        )
        return replace(self, train=train, val=val, open_test=_stays_locked)

    def with_validation(self) -> DataSplits:
        """The same with the validation images among the training images, too.

        Raises:
            SamtuneError: one split is in memory, and the other is streamed.
        """
        train, val = self.train, self.val
        if isinstance(train, Images) and isinstance(val, Images):
            # What is shared with other processes has its border already.
            own = val.padded(self.augmentation) if train.border else val
            return replace(self, train=train.joined(own))
        if isinstance(train, ImageFiles) and isinstance(val, ImageFiles):
            return replace(self, train=train.joined(val))
        raise SamtuneError(
            "training and validation images cannot be trained on together, since one split is held "
            "in memory and the other streamed: search with dataset.in_memory set to always or never"
        )

    def train_batches(
        self, batch_size: int, device: torch.device, *, mixup: float = 0.0, cutmix: float = 0.0
    ) -> Batches:
        """The training split, shuffled and augmented anew each epoch.

        Args:
            mixup, cutmix: see `MixedBatches`; 0 and 0 is off.
        """
        batches = self._batches(self.train, batch_size, device, self.augmentation)
        if not (mixup or cutmix):
            return batches
        return MixedBatches(batches, num_classes=self.num_classes, mixup=mixup, cutmix=cutmix)

    def val_batches(self, batch_size: int, device: torch.device) -> Batches:
        """The validation split, in its own order, never augmented."""
        return self._batches(self.val, batch_size, device, NO_AUGMENTATION)

    def _batches(
        self, split: Split, batch_size: int, device: torch.device, augmentation: Augmentation
    ) -> Batches:
        settings: dict[str, Any] = {
            "mean": self.mean,
            "std": self.std,
            "batch_size": batch_size,
            "augmentation": augmentation,
            "device": device,
        }
        if isinstance(split, ImageFiles):
            return StreamedBatches(split, **settings)
        if split.border not in (0, augmentation.crop_padding):
            raise ValueError(
                f"images have a border of {split.border} pixels, but the augmentation crops from "
                f"{augmentation.crop_padding}"
            )
        return InMemoryBatches(
            split.images, split.targets, is_padded=bool(split.border), **settings
        )


def _stays_locked() -> Split:
    raise RuntimeError("the test split is not shared with the trials of a search")


def stratified_split(labels: Tensor, sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Disjoint random index sets of the given sizes, every class in its usual share.

    The split depends on `seed` and the labels alone, never on the seed of a training run.
    """
    if sum(sizes) > len(labels):
        raise ValueError(f"splits of {list(sizes)} need more than the {len(labels)} images")
    random = np.random.default_rng(seed)
    position = np.empty(len(labels))
    for label in np.unique(labels.numpy()):
        members = np.flatnonzero(labels.numpy() == label)
        # Evenly spaced places with a random phase: any stretch of the order is stratified.
        places = (np.arange(len(members)) + random.random()) / len(members)
        position[random.permutation(members)] = places
    order = torch.from_numpy(np.argsort(position, kind="stable"))
    return [part.sort().values for part in torch.split(order[: sum(sizes)], list(sizes))]


def with_label_noise(split: Images, share: float, num_classes: int, seed: int) -> Images:
    """The same images with exactly this share of the labels moved to another class.

    Args:
        share: 0 to below 1; which images and which wrong class is drawn from `seed` alone.
    """
    if not 0 <= share < 1:
        raise ValueError(f"label_noise must be at least 0 and below 1, got {share}")
    random = np.random.default_rng([seed, 1])
    flipped = torch.from_numpy(
        random.choice(len(split), size=round(share * len(split)), replace=False)
    )
    targets = split.targets.clone()
    shift = torch.from_numpy(random.integers(1, num_classes, size=len(flipped)))
    targets[flipped] = (targets[flipped] + shift) % num_classes
    return replace(split, targets=targets)
