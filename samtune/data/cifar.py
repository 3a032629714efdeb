"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 60,000 colour images of 32x32 pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from samtune.data.batches import Augmentation
from samtune.data.splits import DataSplits, Images, stratified_split, with_label_noise
from samtune.errors import SamtuneError
from samtune.registry import Share, Size, register_dataset

VAL_IMAGES = 5000


@register_dataset("cifar10")
def cifar10(
    *,
    root: Path = Path("data"),
    download: bool = True,
    label_noise: Share = 0.0,
    split_seed: Size = 0,
    crop_padding: Size = 4,
    flip: bool = True,
    cutout: Size = 0,
) -> DataSplits:
    """CIFAR-10: 32x32 colour, ten classes; 45,000 training and 5,000 validation images.

    Args:
        root: folder that holds, or will hold, `cifar-10-batches-py`.
        download: fetch the 170 MB archive if it is not there.
        label_noise: share of the training labels moved to a wrong class; val and test stay clean.
        split_seed: draws the validation images and the wrong labels, whatever the training seed.
        crop_padding: pad by this many pixels, then crop at a random place; 0 is off.
        flip: mirror left to right with probability 1/2.
        cutout: side of the square that is cut out with probability 1/2; 0 is off, 16 is usual.
    """
    import torchvision

    return _cifar(
        torchvision.datasets.CIFAR10,
        name="cifar10",
        num_classes=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        augmentation=Augmentation(crop_padding, flip, cutout),
        root=root,
        download=download,
        label_noise=label_noise,
        split_seed=split_seed,
    )


@register_dataset("cifar100")
def cifar100(
    *,
    root: Path = Path("data"),
    download: bool = True,
    label_noise: Share = 0.0,
    split_seed: Size = 0,
    crop_padding: Size = 4,
    flip: bool = True,
    cutout: Size = 0,
) -> DataSplits:
    """CIFAR-100: 32x32 colour, a hundred classes; 45,000 training and 5,000 validation images.

    Args:
        root: folder that holds, or will hold, `cifar-100-python`.
        download: fetch the 169 MB archive if it is not there.
        label_noise: share of the training labels moved to a wrong class; val and test stay clean.
        split_seed: draws the validation images and the wrong labels, whatever the training seed.
        crop_padding: pad by this many pixels, then crop at a random place; 0 is off.
        flip: mirror left to right with probability 1/2.
        cutout: side of the square that is cut out with probability 1/2; 0 is off, 8 is usual.
    """
    import torchvision

    return _cifar(
        torchvision.datasets.CIFAR100,
        name="cifar100",
        num_classes=100,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        augmentation=Augmentation(crop_padding, flip, cutout),
        root=root,
        download=download,
        label_noise=label_noise,
        split_seed=split_seed,
    )


def _cifar(
    source: Callable[..., Any],
    *,
    name: str,
    num_classes: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    augmentation: Augmentation,
    root: Path,
    download: bool,
    label_noise: float,
    split_seed: int,
) -> DataSplits:
    def read(train: bool) -> Images:
        files = _open(source, name, root, train=train, download=download)
        return Images(torch.from_numpy(files.data), torch.tensor(files.targets))

    everything = read(train=True)
    sizes = (len(everything) - VAL_IMAGES, VAL_IMAGES)
    if sizes[0] <= 0:  # a shortened copy, as for tests: keep the usual share
        sizes = (len(everything) - len(everything) // 10, len(everything) // 10)
    train, val = (everything[i] for i in stratified_split(everything.targets, sizes, split_seed))
    return DataSplits(
        task="classification",
        num_classes=num_classes,
        train=with_label_noise(train, label_noise, num_classes, split_seed),
        val=val,
        open_test=lambda: read(train=False),
        mean=mean,
        std=std,
        augmentation=augmentation,
    )


def _open(source: Callable[..., Any], name: str, root: Path, *, train: bool, download: bool) -> Any:
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):  # one process a machine downloads
            return source(str(root), train=train, download=download)
    except (OSError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split())
        wish = "" if download else " or set dataset.download to true"
        raise SamtuneError(
            f"dataset {name}: its files are not in {root.absolute()}, or are damaged ({reason}). "
            f"Put them there, point dataset.root at them{wish}."
        ) from error
