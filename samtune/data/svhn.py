"""Street View House Numbers (Netzer et al. 2011): 99,289 colour images of 32x32 pixels."""

from __future__ import annotations

from pathlib import Path

import torch

from samtune.data.batches import Augmentation, Padding
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
    """
    import torchvision

    def read(train: bool) -> Images:
        split = "train" if train else "test"
        files = open_files(torchvision.datasets.SVHN, "svhn", root, download=download, split=split)
        images = torch.from_numpy(files.data).permute(0, 2, 3, 1).contiguous()
        return Images(images, torch.from_numpy(files.labels).long())

    return classification_splits(
        read,
        num_classes=10,
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        augmentation=Augmentation(crop_padding, cutout=cutout, padding=padding),
        label_noise=label_noise,
        split_seed=split_seed,
    )
