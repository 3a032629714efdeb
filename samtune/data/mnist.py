"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017): 70,000 grey images of 28x28."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from samtune.data.augmentation import Augmentation, CropArea, Magnitude, Padding, Strength
from samtune.data.digits import DIGITS
from samtune.data.downloads import classification_splits, open_files
from samtune.data.splits import DataSplits, Images
from samtune.registry import Share, Size, register_dataset

CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


@register_dataset("mnist")
def mnist(
    *,
    root: Path = Path("data"),
    download: bool = True,
    label_noise: Share = 0.0,
    split_seed: Size = 0,
    crop_padding: Size = 0,
    padding: Padding = "zero",
    random_resized_crop: CropArea = 1.0,
    color_jitter: Strength = 0.0,
    randaugment_ops: Size = 0,
    randaugment_magnitude: Magnitude = 9,
) -> DataSplits:
    """MNIST: handwritten digits, 28x28 grey; 55,000 training and 5,000 validation images.

    Args:
        root: folder that holds, or will hold, `MNIST/raw`.
        download: fetch the 11 MB if they are not there.
        label_noise: share of the training labels moved to a wrong class; val and test stay clean.
        split_seed: draws the validation images and the wrong labels, whatever the training seed.
        crop_padding: pad by this many pixels, then crop at a random place; 0 is off, 2 is usual.
        padding: what it is padded with: black (zero) or the image mirrored (reflect).
        random_resized_crop: least share of its area that a crop shows, then resized to the whole;
            1 is off, 0.08 is usual for photographs.
        color_jitter: most change of brightness, contrast and saturation; 0 is off, 0.4 is usual.
        randaugment_ops: operations of RandAugment that follow each other; 0 is off, 2 is usual.
        randaugment_magnitude: theirs, from 0 to 30.
    """
    import torchvision

    return _mnist(
        torchvision.datasets.MNIST,
        "mnist",
        root,
        download,
        classes=DIGITS,
        mean=(0.1307,),
        std=(0.3081,),
        augmentation=Augmentation(
            crop_padding,
            padding=padding,
            random_resized_crop=random_resized_crop,
            color_jitter=color_jitter,
            randaugment_ops=randaugment_ops,
            randaugment_magnitude=randaugment_magnitude,
        ),
        label_noise=label_noise,
        split_seed=split_seed,
    )


@register_dataset("fashion_mnist")
def fashion_mnist(
    *,
    root: Path = Path("data"),
    download: bool = True,
    label_noise: Share = 0.0,
    split_seed: Size = 0,
    crop_padding: Size = 0,
    padding: Padding = "zero",
    flip: bool = True,
    cutout: Size = 0,
    random_resized_crop: CropArea = 1.0,
    color_jitter: Strength = 0.0,
    randaugment_ops: Size = 0,
    randaugment_magnitude: Magnitude = 9,
) -> DataSplits:
    """Fashion-MNIST: clothes, 28x28 grey, ten classes; 55,000 training, 5,000 validation images.

    Args:
        root: folder that holds, or will hold, `FashionMNIST/raw`.
        download: fetch the 30 MB if they are not there.
        label_noise: share of the training labels moved to a wrong class; val and test stay clean.
        split_seed: draws the validation images and the wrong labels, whatever the training seed.
        crop_padding: pad by this many pixels, then crop at a random place; 0 is off, 2 is usual.
        padding: what it is padded with: black (zero) or the image mirrored (reflect).
        flip: mirror left to right with probability 1/2.
        cutout: side of the square that is cut out with probability 1/2; 0 is off.
        random_resized_crop: least share of its area that a crop shows, then resized to the whole;
            1 is off, 0.08 is usual for photographs.
        color_jitter: most change of brightness, contrast and saturation; 0 is off, 0.4 is usual.
        randaugment_ops: operations of RandAugment that follow each other; 0 is off, 2 is usual.
        randaugment_magnitude: theirs, from 0 to 30.
    """
    import torchvision

    return _mnist(
        torchvision.datasets.FashionMNIST,
        "fashion_mnist",
        root,
        download,
        classes=CLOTHES,
        mean=(0.2860,),
        std=(0.3530,),
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
        label_noise=label_noise,
        split_seed=split_seed,
    )


def _mnist(
    source: Callable[..., Any], name: str, root: Path, download: bool, **settings: Any
) -> DataSplits:
    def read(train: bool) -> Images:
        files = open_files(source, name, root, download=download, train=train)
        return Images(files.data[..., None], files.targets.long())

    return classification_splits(read, **settings)
