"""Carvana image masking challenge (Kaggle 2017): 5,088 photographs of 318 cars with their masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from samtune.data.augmentation import Augmentation, CropArea, Padding, Strength
from samtune.data.file_splits import (
    ImageSize,
    InMemory,
    folder_splits,
    image_paths,
    masks_of,
    pixel_statistics,
)
from samtune.data.splits import DataSplits
from samtune.data.streaming import ImageFiles, MaskReading
from samtune.errors import SamtuneError
from samtune.registry import Share, Size, register_dataset


@register_dataset("carvana", task="segmentation")
def carvana(
    *,
    root: Path = Path("data/carvana"),
    image_size: ImageSize = (320, 480),
    held_out: Share = 0.1,
    split_seed: Size = 0,
    in_memory: InMemory = "auto",
    workers: Size = 2,
    crop_padding: Size = 0,
    padding: Padding = "zero",
    flip: bool = True,
    random_resized_crop: CropArea = 1.0,
    color_jitter: Strength = 0.0,
) -> DataSplits:
    """Cars against background, as the competition's archives unpack: `train` and `train_masks`.

    The 16 views of a car stay in one split. The competition's own test images have no masks.

    Args:
        root: folder with `train/*.jpg` and `train_masks/*_mask.gif`.
        image_size: height and width to which 1280x1918 pixels are resized.
        held_out: share of the images that is the val split, and as many the test split.
        split_seed: draws those cars, whatever the training seed.
        in_memory: hold all images as bytes (always), stream them (never), or by size: up to 2 GiB.
        workers: processes that read streamed images; 0 reads in the training process.
        crop_padding: pad by this many pixels, then crop at a random place; 0 is off.
        padding: what it is padded with: black (zero) or the image mirrored (reflect).
        flip: mirror left to right with probability 1/2.
        random_resized_crop: least share of its area that a crop shows, then resized to the whole;
            1 is off, 0.08 is usual for photographs.
        color_jitter: most change of brightness, contrast and saturation; 0 is off, 0.4 is usual.
    """
    if not (root / "train").is_dir() or not (root / "train_masks").is_dir():
        raise SamtuneError(
            f"dataset carvana: {root.absolute()} must hold train and train_masks, unpacked from "
            "kaggle.com/c/carvana-image-masking-challenge; put them there or set dataset.root"
        )
    images = image_paths(root / "train")
    everything = ImageFiles(
        images,
        image_size,
        masks=masks_of(images, root / "train_masks"),
        mask_reading=MaskReading(1),
        workers=workers,
    )
    mean, std = pixel_statistics(3)
    return folder_splits(
        {"train": root / "train"},
        lambda _: everything,
        lambda files, sizes: _by_car(files.paths, sizes, split_seed),
        held_out=held_out,
        in_memory=in_memory,
        task="segmentation",
        num_classes=1,
        mean=mean,
        std=std,
        augmentation=Augmentation(
            crop_padding,
            flip,
            padding=padding,
            random_resized_crop=random_resized_crop,
            color_jitter=color_jitter,
        ),
        classes=("car",),
    )


def _by_car(paths: Sequence[Path], sizes: Sequence[int], seed: int) -> list[Tensor]:
    """Index sets of about these sizes; the views of a car, alike but for the angle, stay together.

    A file is named CAR_VIEW.jpg.
    """
    cars: dict[str, list[int]] = {}
    for i, path in enumerate(paths):
        cars.setdefault(path.stem.rpartition("_")[0], []).append(i)
    if len(cars) < len(sizes):
        raise SamtuneError(f"{len(sizes)} splits need as many cars, but there are {len(cars)}")
    names = sorted(cars)
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    parts: list[list[int]] = []
    for size in sizes[:0:-1]:
        part = cars[order.pop()]
        while len(part) < size and len(order) > len(sizes) - 1 - len(parts):
            part = part + cars[order.pop()]
        parts.append(part)
    parts.append([i for car in order for i in cars[car]])
    return [torch.tensor(sorted(part)) for part in parts[::-1]]
