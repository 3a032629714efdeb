"""Handwritten digits, 8x8 pixels, that ship with scikit-learn: real data on any machine, at once.

1,797 images of ten classes (Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits).
"""

from __future__ import annotations

import torch

from samtune.data.splits import DataSplits, Images, stratified_split, with_label_noise
from samtune.registry import Share, Size, register_dataset

SIZES = (1200, 297, 300)  # train, val, test


@register_dataset("digits")
def digits(*, label_noise: Share = 0.0, split_seed: Size = 0) -> DataSplits:
    """Handwritten digits, 8x8 grey, ten classes: 1,200 training images; nothing to download.

    Args:
        label_noise: share of the training labels moved to a wrong class; val and test stay clean.
        split_seed: draws the three splits and the wrong labels, whatever the training seed.
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
    return DataSplits(
        task="classification",
        num_classes=10,
        train=with_label_noise(train, label_noise, 10, split_seed),
        val=val,
        open_test=lambda: test,
        mean=(0.3053,),
        std=(0.3760,),
    )
