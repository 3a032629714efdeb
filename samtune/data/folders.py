"""Your own images in folders, for classification and for segmentation.

Each folder may have `train`, `val` and `test` inside. A `val` or `test` that is not there is taken
from the training images; without `train` the folder itself holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from samtune.data.batches import Augmentation, Padding
from samtune.data.splits import DataSplits, Images, Split, stratified_split
from samtune.data.streaming import ImageFiles, MaskReading
from samtune.errors import SamtuneError, did_you_mean
from samtune.registry import Count, Share, Size, register_dataset

IN_MEMORY_BYTES = 2 * 2**30
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")

ImageSize = tuple[Count, Count]
InMemory = Literal["auto", "always", "never"]


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
) -> DataSplits:
    """Images in one folder a class: `root/train/cat/1.jpg`, or `root/cat/1.jpg`.

    Args:
        root: the folder; `train`, `val` and `test` inside have the same classes.
        image_size: height and width to which every image is resized.
        channels: 1 reads as grey, 3 as colour.
        held_out: share of the training images that is the val (and the test) split where the
            folder has none.
        split_seed: draws those, whatever the training seed.
        in_memory: hold all images as bytes (always), stream them (never), or by size: up to 2 GiB.
        workers: processes that read streamed images; 0 reads in the training process.
        crop_padding: pad by this many pixels, then crop at a random place; 0 is off.
        padding: what it is padded with: black (zero) or the image mirrored (reflect).
        flip: mirror left to right with probability 1/2.
        cutout: side of the square that is cut out with probability 1/2; 0 is off.
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
        augmentation=Augmentation(crop_padding, flip, cutout, padding),
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
) -> DataSplits:
    """Images with masks: `root/train/images/1.jpg` and `root/train/masks/1.png` (or `1_mask.png`).

    Args:
        root: the folder; without `train` inside it holds `images` and `masks` itself.
        image_size: height and width to which images and masks are resized.
        num_classes: 1 makes every mask pixel above 0 foreground; more takes pixels as classes
            0, 1, 2, ...
        channels: 1 reads as grey, 3 as colour.
        allow_empty_masks: take masks without any foreground; else they are a mistake.
        held_out: share of the training images that is the val (and the test) split where the
            folder has none.
        split_seed: draws those, whatever the training seed.
        in_memory: hold all images as bytes (always), stream them (never), or by size: up to 2 GiB.
        workers: processes that read streamed images; 0 reads in the training process.
        crop_padding: pad by this many pixels, then crop at a random place; 0 is off.
        padding: what it is padded with: black (zero) or the image mirrored (reflect).
        flip: mirror left to right with probability 1/2.
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
        augmentation=Augmentation(crop_padding, flip, padding=padding),
    )


def folder_splits(
    folders: dict[str, Path],
    files: Callable[[str], ImageFiles],
    split: Callable[[ImageFiles, Sequence[int]], list[Tensor]],
    *,
    held_out: float,
    in_memory: InMemory,
    task: str,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    augmentation: Augmentation,
) -> DataSplits:
    """Splits from folders; those without one are cut from the training files.

    Args:
        folders: `train`, and `val` and `test` where they exist.
        files: lists the files of one of them.
        split: cuts the training files into index sets of the given sizes.
    """
    everything = files("train")
    missing = [name for name in ("val", "test") if name not in folders]
    size = max(1, round(held_out * len(everything)))
    sizes = [len(everything) - size * len(missing), *(size for _ in missing)]
    if sizes[0] < 1:
        raise SamtuneError(f"folder {folders['train']} has too few images to hold any out")
    parts = dict(zip(["train", *missing], split(everything, sizes), strict=True))

    def part(name: str) -> Split:
        chosen = everything[parts[name].tolist()] if name in parts else files(name)
        return held(chosen, in_memory)

    return DataSplits(
        task=task,
        num_classes=num_classes,
        train=part("train"),
        val=part("val"),
        open_test=lambda: part("test"),
        mean=mean,
        std=std,
        augmentation=augmentation,
    )


def held(files: ImageFiles, in_memory: InMemory) -> Split:
    """The files read into memory, or as they are where that would take too much."""
    fits = files.nbytes <= IN_MEMORY_BYTES
    if in_memory == "always" or (in_memory == "auto" and fits):
        return Images(*files.read_all())
    return files


def image_paths(folder: Path) -> list[Path]:
    """The images of a folder, by name.

    Raises:
        SamtuneError: it is not there, or has none.
    """
    if not folder.is_dir():
        raise SamtuneError(f"folder {folder} does not exist; point dataset.root at the right one")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise SamtuneError(f"folder {folder} has no images ({', '.join(SUFFIXES)})")
    return paths


def masks_of(images: Sequence[Path], folder: Path) -> list[Path]:
    """The mask of each image: the same name, with or without `_mask`, and any ending.

    Raises:
        SamtuneError: an image has no mask.
    """
    masks = {path.stem.removesuffix("_mask"): path for path in image_paths(folder)}
    without = [path.name for path in images if path.stem not in masks]
    if without:
        raise SamtuneError(
            f"{len(without)} images have no mask in {folder}, {without[0]} the first: add "
            f"{Path(without[0]).stem}_mask.png, or remove the image"
        )
    return [masks[path.stem] for path in images]


def pixel_statistics(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of ImageNet's pixels, in colour or grey."""
    if channels == 1:
        return (0.449,), (0.226,)
    return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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
