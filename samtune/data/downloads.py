"""Datasets that torchvision knows how to fetch and to read, held in memory."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from samtune.data.augmentation import Augmentation
from samtune.data.splits import DataSplits, Images, stratified_split, with_label_noise
from samtune.errors import SamtuneError

VAL_IMAGES = 5000


def classification_splits(
    read: Callable[[bool], Images],
    *,
    classes: Sequence[str],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    augmentation: Augmentation,
    label_noise: float,
    split_seed: int,
) -> DataSplits:
    """The training files less 5,000 validation images; the test files stay unread.

    Args:
        read: the images of the training files (true) or of the test files (false).
        classes: their names, in order.
    """
    num_classes = len(classes)
    everything = read(True)
    sizes = (len(everything) - VAL_IMAGES, VAL_IMAGES)
    if sizes[0] <= 0:  # a shortened copy, as for tests: keep the usual share
        sizes = (len(everything) - len(everything) // 10, len(everything) // 10)
    train, val = (everything[i] for i in stratified_split(everything.targets, sizes, split_seed))
    return DataSplits(
        task="classification",
        num_classes=num_classes,
        train=with_label_noise(train, label_noise, num_classes, split_seed),
        val=val,
        open_test=lambda: read(False),
        mean=mean,
        std=std,
        augmentation=augmentation,
        classes=classes,
    )


def open_files(
    source: Callable[..., Any], name: str, root: Path, *, download: bool, **arguments: Any
) -> Any:
    """A torchvision dataset over files in `root`, fetched if they are not there.

    Raises:
        SamtuneError: they are not there and cannot be fetched, or are damaged.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):  # one process a machine downloads
            files = source(str(root), download=download, **arguments)
        targets = getattr(files, "targets", getattr(files, "labels", None))
        if targets is not None and len(targets) != len(files.data):
            raise ValueError(f"{len(files.data)} images but {len(targets)} labels")
        return files
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        AssertionError,  # torchvision's words for an idx file that is shortened,
        KeyError,  # of no type
        TypeError,  # or of another than bytes
        pickle.UnpicklingError,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        wish = "" if download else " or set dataset.download to true"
        raise SamtuneError(
            f"dataset {name}: its files are not in {root.absolute()}, or are damaged ({reason}). "
            f"Put them there, point dataset.root at them{wish}."
        ) from error
