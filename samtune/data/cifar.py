"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 60,000 colour images of 32x32 pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from samtune.data.augmentation import Augmentation, CropArea, Magnitude, Padding, Strength
from samtune.data.downloads import classification_splits, open_files
from samtune.data.splits import DataSplits, Images
from samtune.registry import Share, Size, register_dataset

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house
    kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
    mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
    plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark
    shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table
    tank telephone television tiger tractor train trout tulip turtle wardrobe whale
    willow_tree wolf woman worm
"""


@register_dataset("cifar10")
def cifar10(
    *,
    root: Path = Path("data"),
    download: bool = True,
    label_noise: Share = 0.0,
    split_seed: Size = 0,
    crop_padding: Size = 4,
    padding: Padding = "zero",
    flip: bool = True,
    cutout: Size = 0,
    random_resized_crop: CropArea = 1.0,
    color_jitter: Strength = 0.0,
    randaugment_ops: Size = 0,
    randaugment_magnitude: Magnitude = 9,
) -> DataSplits:
    """CIFAR-10: 32x32 colour, ten classes; 45,000 training and 5,000 validation images.

    Args:
        root: folder that holds, or will hold, `cifar-10-batches-py`.
        download: fetch the 170 MB archive if it is not there.
        label_noise: share of the training labels moved to a wrong class; val and test stay clean.
        split_seed: draws the validation images and the wrong labels, whatever the training seed.
        crop_padding: pad by this many pixels, then crop at a random place; 0 is off.
        padding: what it is padded with: black (zero) or the image mirrored (reflect).
        flip: mirror left to right with probability 1/2.
        cutout: side of the square that is cut out with probability 1/2; 0 is off, 16 is usual.
        random_resized_crop: least share of its area that a crop shows, then resized to the whole;
            1 is off, 0.08 is usual for photographs.
        color_jitter: most change of brightness, contrast and saturation; 0 is off, 0.4 is usual.
        randaugment_ops: operations of RandAugment that follow each other; 0 is off, 2 is usual.
        randaugment_magnitude: theirs, from 0 to 30.
    """
    import torchvision

    return _cifar(
        torchvision.datasets.CIFAR10,
        "cifar10",
        root,
        download,
        classes=CIFAR10.split(),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
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


@register_dataset("cifar100")
def cifar100(
    *,
    root: Path = Path("data"),
    download: bool = True,
    label_noise: Share = 0.0,
    split_seed: Size = 0,
    crop_padding: Size = 4,
    padding: Padding = "zero",
    flip: bool = True,
    cutout: Size = 0,
    random_resized_crop: CropArea = 1.0,
    color_jitter: Strength = 0.0,
    randaugment_ops: Size = 0,
    randaugment_magnitude: Magnitude = 9,
) -> DataSplits:
    """CIFAR-100: 32x32 colour, a hundred classes; 45,000 training and 5,000 validation images.

    Args:
        root: folder that holds, or will hold, `cifar-100-python`.
        download: fetch the 169 MB archive if it is not there.
        label_noise: share of the training labels moved to a wrong class; val and test stay clean.
        split_seed: draws the validation images and the wrong labels, whatever the training seed.
        crop_padding: pad by this many pixels, then crop at a random place; 0 is off.
        padding: what it is padded with: black (zero) or the image mirrored (reflect).
        flip: mirror left to right with probability 1/2.
        cutout: side of the square that is cut out with probability 1/2; 0 is off, 8 is usual.
        random_resized_crop: least share of its area that a crop shows, then resized to the whole;
            1 is off, 0.08 is usual for photographs.
        color_jitter: most change of brightness, contrast and saturation; 0 is off, 0.4 is usual.
        randaugment_ops: operations of RandAugment that follow each other; 0 is off, 2 is usual.
        randaugment_magnitude: theirs, from 0 to 30.
    """
    import torchvision

    return _cifar(
        torchvision.datasets.CIFAR100,
        "cifar100",
        root,
        download,
        classes=CIFAR100.split(),
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
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


def _cifar(
    source: Callable[..., Any], name: str, root: Path, download: bool, **settings: Any
) -> DataSplits:
    def read(train: bool) -> Images:
        files = open_files(source, name, root, download=download, train=train)
        return Images(torch.from_numpy(files.data), torch.tensor(files.targets))

    return classification_splits(read, **settings)
