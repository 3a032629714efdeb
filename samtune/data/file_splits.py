"""Splits from lists of image files: cut from them, held in memory or left to be streamed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from samtune.data.augmentation import Augmentation
from samtune.data.splits import DataSplits, Images, Split
from samtune.data.streaming import ImageFiles
from samtune.errors import SamtuneError
from samtune.registry import Count

IN_MEMORY_BYTES = 2 * 2**30
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")

ImageSize = tuple[Count, Count]
InMemory = Literal["auto", "always", "never"]


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
    classes: Sequence[str] = (),
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
        classes=classes,
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
