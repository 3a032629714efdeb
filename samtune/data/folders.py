"""Your own images in folders, for classification and for segmentation.

Each folder may have `train`, `val` and `test` inside. A `val` or `test` that is not there is taken
from the training images; without `train` the folder itself holds them. No training and no search
reads the test split.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from samtune.data.augmentation import Augmentation, CropArea, Magnitude, Padding, Strength
from samtune.data.file_splits import (
    SUFFIXES,
    ImageSize,
    InMemory,
    folder_splits,
    image_paths,
    masks_of,
    pixel_statistics,
)
from samtune.data.splits import DataSplits, stratified_split
from samtune.data.streaming import ImageFiles, MaskReading
from samtune.errors import SamtuneError, did_you_mean
from samtune.registry import Count, Share, Size, register_dataset


@register_dataset("image_folder")
def image_folder(
    *,
    root: Path,
    image_size: ImageSize = (224, 224),
    channels: Literal[1, 3] = 3,
    held_out: Share = 0.1,
    split_seed: Size = 0,
    in_memory: InMemory = "auto",
    workers: Size = 2,
    crop_padding: Size = 0,
    padding: Padding = "zero",
    flip: bool = True,
    cutout: Size = 0,
    random_resized_crop: CropArea = 1.0,
    color_jitter: Strength = 0.0,
    randaugment_ops: Size = 0,
    randaugment_magnitude: Magnitude = 9,
) -> DataSplits:
    """Images in one folder a class: `root/train/cat/1.jpg`, or `root/cat/1.jpg`.

    Args:
        root: the folder; `train`, `val` and `test` inside have the same classes.
        image_size: height and width to which every image is resized.
        channels: 1 reads as grey, 3 as colour.
        held_out: share of the training images that becomes val where there is no `val` folder, and
            the same again test where there is no `test` folder; nothing trains on either.
        split_seed: draws those, whatever the training seed.
        in_memory: hold all images as bytes (always), stream them (never), or by size: up to 2 GiB.
        workers: processes that read streamed images; 0 reads in the training process.
        crop_padding: pad by this many pixels, then crop at a random place; 0 is off.
        padding: what it is padded with: black (zero) or the image mirrored (reflect).
        flip: mirror left to right with probability 1/2.
        cutout: side of the square that is cut out with probability 1/2; 0 is off.
        random_resized_crop: least share of its area that a crop shows, then resized to the whole;
            1 is off, 0.08 is usual for photographs.
        color_jitter: most change of brightness, contrast and saturation; 0 is off, 0.4 is usual.
        randaugment_ops: operations of RandAugment that follow each other; 0 is off, 2 is usual.
        randaugment_magnitude: theirs, from 0 to 30.
    """
    from torchvision.datasets.folder import make_dataset

    folders = _split_folders(root)
    classes = _classes(folders["train"])
    for folder in folders.values():
        _must_have_classes(folder, classes, folders["train"])

    def files(name: str) -> ImageFiles:
        found = make_dataset(
            str(folders[name]), {c: i for i, c in enumerate(classes)}, SUFFIXES, allow_empty=True
        )
        if not found:
            raise SamtuneError(f"folder {folders[name]} has no images in its class folders")
        empty = set(range(len(classes))) - {label for _, label in found}
        if name == "train" and empty:  # .ipynb_checkpoints, say, is no class
            raise SamtuneError(
                f"class folder {folders[name] / classes[min(empty)]} has no images: add some, or "
                "remove it"
            )
        return ImageFiles(
            [Path(path) for path, _ in found],
            image_size,
            labels=[label for _, label in found],
            channels=channels,
            workers=workers,
        )

    def split(everything: ImageFiles, sizes: Sequence[int]) -> list[Tensor]:
        return stratified_split(torch.tensor(everything.labels), sizes, split_seed)

    mean, std = pixel_statistics(channels)
    return folder_splits(
        folders,
        files,
        split,
        held_out=held_out,
        in_memory=in_memory,
        task="classification",
        num_classes=len(classes),
        mean=mean,
        std=std,
        augmentation=Augmentation(
            crop_padding,
            flip,
            cutout,
            padding,
            random_resized_crop=random_resized_crop,
            color_jitter=color_jitter,
            randaugment_ops=randaugment_ops,
            randaugment_magnitude=randaugment_magnitude,
        ),
        classes=classes,
    )


@register_dataset("segmentation_folder", task="segmentation")
def segmentation_folder(
    *,
    root: Path,
    image_size: ImageSize = (256, 256),
    num_classes: Count = 1,
    channels: Literal[1, 3] = 3,
    allow_empty_masks: bool = False,
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
    """Images with masks: `root/train/images/1.jpg` and `root/train/masks/1.png` (or `1_mask.png`).

    Args:
        root: the folder; without `train` inside it holds `images` and `masks` itself.
        image_size: height and width to which images and masks are resized.
        num_classes: 1 makes every mask pixel above 0 foreground; more takes pixels as classes
            0, 1, 2, ...
        channels: 1 reads as grey, 3 as colour.
        allow_empty_masks: take masks without any foreground; else they are a mistake.
        held_out: share of the training images that becomes val where there is no `val` folder, and
            the same again test where there is no `test` folder; nothing trains on either.
        split_seed: draws those, whatever the training seed.
        in_memory: hold all images as bytes (always), stream them (never), or by size: up to 2 GiB.
        workers: processes that read streamed images; 0 reads in the training process.
        crop_padding: pad by this many pixels, then crop at a random place; 0 is off.
        padding: what it is padded with: black (zero) or the image mirrored (reflect).
        flip: mirror left to right with probability 1/2.
        random_resized_crop: least share of its area that a crop shows, then resized to the whole;
            1 is off, 0.08 is usual for photographs.
        color_jitter: most change of brightness, contrast and saturation; 0 is off, 0.4 is usual.
    """
    folders = _split_folders(root)

    def files(name: str) -> ImageFiles:
        images = image_paths(folders[name] / "images")
        return ImageFiles(
            images,
            image_size,
            masks=masks_of(images, folders[name] / "masks"),
            mask_reading=MaskReading(num_classes, allow_empty=allow_empty_masks),
            channels=channels,
            workers=workers,
        )

    mean, std = pixel_statistics(channels)
    return folder_splits(
        folders,
        files,
        lambda everything, sizes: _random_split(len(everything), sizes, split_seed),
        held_out=held_out,
        in_memory=in_memory,
        task="segmentation",
        num_classes=num_classes,
        mean=mean,
        std=std,
        augmentation=Augmentation(
            crop_padding,
            flip,
            padding=padding,
            random_resized_crop=random_resized_crop,
            color_jitter=color_jitter,
        ),
    )


def _split_folders(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise SamtuneError(f"folder {root.absolute()} does not exist; set dataset.root")
    if not (root / "train").is_dir():
        return {"train": root}
    return {name: root / name for name in ("train", "val", "test") if (root / name).is_dir()}


def _classes(folder: Path) -> list[str]:
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if len(classes) < 2:
        raise SamtuneError(
            f"folder {folder} must have a folder for each of at least two classes, "
            f"found {', '.join(classes) or 'none'}"
        )
    return classes


def _must_have_classes(folder: Path, classes: Sequence[str], train: Path) -> None:
    found = _classes(folder)
    if found == list(classes):
        return
    more = [c for c in found if c not in classes]
    fewer = [c for c in classes if c not in found]
    name = (more or fewer)[0]
    where, other = (folder, train) if more else (train, folder)
    raise SamtuneError(
        f"class {name!r} is in {where} but not in {other}: every split must have the same class "
        f"folders.{did_you_mean(name, fewer if more else found)}"
    )


def _random_split(count: int, sizes: Sequence[int], seed: int) -> list[Tensor]:
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    return [part.sort().values for part in torch.split(order, list(sizes))]
