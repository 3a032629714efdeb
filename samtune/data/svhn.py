"""Street View House Numbers (Netzer et al. 2011): 99,289 colour images of 32x32 pixels."""

from __future__ import annotations

from pathlib import Path

import torch

from samtune.data.augmentation import Augmentation, CropArea, Magnitude, Padding, Strength
from samtune.data.digits import DIGITS
from samtune.data.downloads import classification_splits, open_files
from samtune.data.splits import DataSplits, Images
from samtune.registry import Share, Size, register_dataset


@register_dataset("svhn")
def svhn(
    *,
    root: Path = Path("data"),
    download: bool = True,
    label_noise: Share = 0.0,
    split_seed: Size = 0,
    crop_padding: Size = 4,
    padding: Padding = "zero",
    cutout: Size = 0,
    random_resized_crop: CropArea = 1.0,
    color_jitter: Strength = 0.0,
    randaugment_ops: Size = 0,
    randaugment_magnitude: Magnitude = 9,
) -> DataSplits:
    """SVHN: digits on house fronts, 32x32 colour; 68,257 training and 5,000 validation images.

    Args:
        root: folder that holds, or will hold, `train_32x32.mat` and `test_32x32.mat`.
        download: fetch the 246 MB if they are not there.
        label_noise: share of the training labels moved to a wrong class; val and test stay clean.
        split_seed: draws the validation images and the wrong labels, whatever the training seed.
        crop_padding: pad by this many pixels, then crop at a random place; 0 is off.
        padding: what it is padded with: black (zero) or the image mirrored (reflect).
        cutout: side of the square that is cut out with probability 1/2; 0 is off, 20 is usual.
        random_resized_crop: least share of its area that a crop shows, then resized to the whole;
            1 is off, 0.08 is usual for photographs.
        color_jitter: most change of brightness, contrast and saturation; 0 is off, 0.4 is usual.
        randaugment_ops: operations of RandAugment that follow each other; 0 is off, 2 is usual.
        randaugment_magnitude: theirs, from 0 to 30.
    """
    import torchvision

    def read(train: bool) -> Images:
        split = "train" if train else "test"
        files = open_files(torchvision.datasets.SVHN, "svhn", root, download=download, split=split)
        images = torch.from_numpy(files.data).permute(0, 2, 3, 1).contiguous()
        return Images(images, torch.from_numpy(files.labels).long())

    return classification_splits(
        read,
        classes=DIGITS,
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        augmentation=Augmentation(
            crop_padding,
            cutout=cutout,
            padding=padding,
            random_resized_crop=random_resized_crop,
            color_jitter=color_jitter,
            randaugment_ops=randaugment_ops,
            randaugment_magnitude=randaugment_magnitude,
        ),
        label_noise=label_noise,
        split_seed=split_seed,
    )
