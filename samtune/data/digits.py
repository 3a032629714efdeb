"""Handwritten digits, 8x8 pixels, that ship with scikit-learn: real data on any machine, at once.

1,797 images of ten classes (Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits).
"""

from __future__ import annotations

import torch

from samtune.data.augmentation import Augmentation, CropArea, Magnitude, Strength
from samtune.data.splits import DataSplits, Images, stratified_split, with_label_noise
from samtune.registry import Share, Size, register_dataset

SIZES = (1200, 297, 300)  # train, val, test
DIGITS = tuple("0123456789")


@register_dataset("digits")
def digits(
    *,
    label_noise: Share = 0.0,
    split_seed: Size = 0,
    random_resized_crop: CropArea = 1.0,
    color_jitter: Strength = 0.0,
    randaugment_ops: Size = 0,
    randaugment_magnitude: Magnitude = 9,
) -> DataSplits:
    """Handwritten digits, 8x8 grey, ten classes: 1,200 training images; nothing to download.

    Args:
        label_noise: share of the training labels moved to a wrong class; val and test stay clean.
        split_seed: draws the three splits and the wrong labels, whatever the training seed.
        random_resized_crop: least share of its area that a crop shows, then resized to the whole;
            1 is off, 0.08 is usual for photographs.
        color_jitter: most change of brightness, contrast and saturation; 0 is off, 0.4 is usual.
        randaugment_ops: operations of RandAugment that follow each other; 0 is off, 2 is usual.
        randaugment_magnitude: theirs, from 0 to 30.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = torch.from_numpy(bunch.images) * (255 / 16)
    everything = Images(
        grey.round().to(torch.uint8)[..., None], torch.from_numpy(bunch.target).long()
    )
    train, val, test = (
        everything[index] for index in stratified_split(everything.targets, SIZES, split_seed)
    )
    mean, std = train.statistics()
    return DataSplits(
        task="classification",
        num_classes=10,
        train=with_label_noise(train, label_noise, 10, split_seed),
        val=val,
        open_test=lambda: test,
        mean=mean,
        std=std,
        augmentation=Augmentation(
            random_resized_crop=random_resized_crop,
            color_jitter=color_jitter,
            randaugment_ops=randaugment_ops,
            randaugment_magnitude=randaugment_magnitude,
        ),
        classes=DIGITS,
    )
