"""What an exported model is worth on a split of its data set, or on folders of images.

The test split stays locked: neither its name nor a folder of the model's own data set opens it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from samtune.data import DataSplits, open_dataset
from samtune.data.augmentation import NO_AUGMENTATION
from samtune.data.batches import Batches
from samtune.data.file_splits import SUFFIXES, image_paths, masks_of
from samtune.data.streaming import ImageFiles, MaskReading, StreamedBatches
from samtune.errors import SamtuneError, did_you_mean
from samtune.export.about import About
from samtune.export.base import ExportedModel
from samtune.export.comparison import as_they_are

BATCH = 64
SPLITS = ("val", "train")


@dataclass(frozen=True)
class Measured:
    """What came of some images.

    Attributes:
        metrics: under the task's names, such as `accuracy`.
    """

    images: int
    metrics: dict[str, float]


def evaluate_split(model: ExportedModel, split: str = "val", root: Path | None = None) -> Measured:
    """The model's metrics on a split of the data set that it was trained on, never augmented.

    Args:
        split: `val`, or `train` with the labels that were trained on.
        root: where the data set's files are, if no longer where they were.

    Raises:
        SamtuneError: it is the test split, or none, or the data set cannot be read.
    """
    if split not in SPLITS:
        raise SamtuneError(
            "the test split is locked: `samtune confirm` reads it, once"
            if split == "test"
            else f"there is no split {split!r}: take {' or '.join(SPLITS)}"
        )
    about = model.about
    name, params = _dataset(about)
    if root is not None:
        if "root" not in params:
            raise SamtuneError(f"data set {name} has no root: it lies in no folder of yours")
        if not _is_same(root, params["root"]):
            _check_not_its_own(about, root)
        params["root"] = str(root)
    data = open_dataset(name, params)
    _check_fits(about, data)
    return measure_split(model, data if split == "val" else replace(data, val=data.train))


def evaluate_folder(model: ExportedModel, folder: Path) -> Measured:
    """The model's metrics on images of one's own, resized to its size.

    Args:
        folder: one folder of images a class, named as the model's classes are; for masks the
            folders `images` and `masks`.

    Raises:
        SamtuneError: it has other classes, or an image cannot be read, or it is part of the
            model's own data set, where test images may lie.
    """
    _check_not_its_own(model.about, folder)
    if not folder.is_dir():
        raise SamtuneError(f"{folder} is no folder")
    files = (_masked if model.about.task == "segmentation" else _labelled)(model.about, folder)
    channels = files.channels
    batches = StreamedBatches(
        files,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        batch_size=BATCH,
        device=torch.device("cpu"),
        augmentation=NO_AUGMENTATION,
    )
    return _measure(model, batches)


def measure_split(model: ExportedModel, data: DataSplits) -> Measured:
    """The model's metrics on the validation split, which it sees as it is, in fp32 on the CPU."""
    return _measure(model, as_they_are(data).val_batches(BATCH, torch.device("cpu")))


def image_files(about: About, paths: list[Path], **targets: Any) -> ImageFiles:
    """Image files as the model takes them: in its size and its colours, as training read them."""
    if about.input.channels not in (1, 3):
        raise SamtuneError(
            f"the model takes images of {about.input.channels} channels, which image files do not "
            "have: call it from Python, `samtune.export.load_exported`"
        )
    return ImageFiles(paths, about.input.size, channels=about.input.channels, **targets)


@torch.no_grad()
def _measure(model: ExportedModel, batches: Batches) -> Measured:
    meter = model.about.build_task().score_meter()
    for images, targets in batches.in_order():
        meter.update(model(images), images, targets)
    return Measured(len(batches), meter.compute())


def _dataset(about: About) -> tuple[str, dict[str, Any]]:
    found = about.config.get("dataset")
    if not isinstance(found, Mapping) or not isinstance(found.get("name"), str):
        raise SamtuneError("the exported file does not say which data set it was trained on")
    return found["name"], {key: value for key, value in found.items() if key != "name"}


def _check_fits(about: About, data: DataSplits) -> None:
    own = (about.input.channels, about.input.size, about.num_classes)
    found = (data.in_channels, data.image_size, data.num_classes)
    if own != found or [*data.classes] != about.classes:
        raise SamtuneError(
            "the data set is no longer the one that the model was trained on: (channels, size, "
            f"classes) are {found} and were {own}"
        )


def _check_not_its_own(about: About, folder: Path) -> None:
    """Refuses folders that overlap the model's data set: its test images lie there, or may."""
    root = _dataset(about)[1].get("root")
    if not isinstance(root, str):
        return
    theirs, own = Path(root).resolve(), folder.resolve()
    if own.is_relative_to(theirs) or theirs.is_relative_to(own):
        raise SamtuneError(
            f"{folder} belongs to the data set that the model was trained on, with its test "
            "images, which `samtune confirm` alone reads, once: take --split val or --split train"
        )


def _is_same(one: Path, other: object) -> bool:
    return isinstance(other, str) and one.resolve() == Path(other).resolve()


def _labelled(about: About, folder: Path) -> ImageFiles:
    from torchvision.datasets.folder import make_dataset

    found = sorted(path.name for path in folder.iterdir() if path.is_dir())
    classes = about.classes or found
    strange = [name for name in found if name not in classes]
    if strange or not found:
        name = strange[0] if strange else "none"
        raise SamtuneError(
            f"{folder} must hold one folder of images a class: {', '.join(classes)[:300]}; found "
            f"{name}.{did_you_mean(name, classes)}"
        )
    if len(classes) != about.num_classes:
        raise SamtuneError(
            f"{folder} has {len(found)} folders, and the model {about.num_classes} classes, whose "
            "names it does not know: there must be one folder for each, in the same order"
        )
    numbers = {name: number for number, name in enumerate(classes)}
    images = make_dataset(
        str(folder), {name: numbers[name] for name in found}, SUFFIXES, allow_empty=True
    )
    if not images:
        raise SamtuneError(f"{folder} has no images in its class folders ({', '.join(SUFFIXES)})")
    paths, labels = zip(*images, strict=True)
    return image_files(about, [Path(path) for path in paths], labels=labels)


def _masked(about: About, folder: Path) -> ImageFiles:
    images = image_paths(folder / "images")
    return image_files(
        about,
        images,
        masks=masks_of(images, folder / "masks"),
        mask_reading=MaskReading(about.num_classes, allow_empty=True),
    )
