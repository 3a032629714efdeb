"""Digits on a noisy canvas, with the mask of their strokes: segmentation on any machine, at once.

Made from the images of `samtune.data.digits`; which digit goes where is drawn from a seed.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from samtune.data.augmentation import Augmentation, CropArea, Strength
from samtune.data.digits import digits
from samtune.data.splits import DataSplits, Images
from samtune.registry import Count, Share, Size, register_dataset

SIZES = (600, 150, 150)  # train, val, test
SCALE = 2  # a digit of 8x8 becomes 16x16
INK = 0.5
"""A pixel at least this dark in the digit belongs to its mask."""


@register_dataset("digits_segmentation", task="segmentation")
def digits_segmentation(
    *,
    canvas: Count = 32,
    digits_per_image: Count = 2,
    noise: Share = 0.2,
    split_seed: Size = 0,
    random_resized_crop: CropArea = 1.0,
    color_jitter: Strength = 0.0,
) -> DataSplits:
    """Handwritten digits at random places of a noisy canvas; 600 training images with masks.

    Args:
        canvas: side of an image in pixels, at least 16.
        digits_per_image: how many digits; later ones are drawn over earlier ones.
        noise: deviation of the noise over the whole canvas, where 1 is from black to white.
        split_seed: draws the splits, the places and the noise, whatever the training seed.
        random_resized_crop: least share of its area that a crop shows, then resized to the whole;
            1 is off, 0.08 is usual for photographs.
        color_jitter: most change of brightness, contrast and saturation; 0 is off, 0.4 is usual.
    """
    side = 8 * SCALE
    if canvas < side:
        raise ValueError(f"canvas must be at least {side} pixels, one digit's size, got {canvas}")
    source = digits(split_seed=split_seed)
    train, val = source.train, source.val
    assert isinstance(train, Images)
    assert isinstance(val, Images)

    def draw(strokes: Tensor, split: int) -> Images:
        random = np.random.default_rng([split_seed, split])
        return _placed(strokes, SIZES[split], canvas, digits_per_image, noise, random)

    def open_test() -> Images:
        test = source.open_test()
        assert isinstance(test, Images)
        return draw(test.images, 2)

    drawn = draw(train.images, 0)
    mean, std = drawn.statistics()
    return DataSplits(
        task="segmentation",
        num_classes=1,
        train=drawn,
        val=draw(val.images, 1),
        open_test=open_test,
        mean=mean,
        std=std,
        augmentation=Augmentation(
            random_resized_crop=random_resized_crop,
            color_jitter=color_jitter,
        ),
        classes=("digit",),
    )


def _placed(
    strokes: Tensor,
    count: int,
    canvas: int,
    digits_per_image: int,
    noise: float,
    random: np.random.Generator,
) -> Images:
    """Digits (N, 8, 8, 1) of one split on canvases, so that no digit is in two splits."""
    ink = np.kron(strokes[..., 0].numpy() / 255, np.ones((1, SCALE, SCALE)))
    side = ink.shape[1]
    grey = np.full((count, canvas, canvas), 0.3)
    masks = np.zeros((count, canvas, canvas), dtype=np.uint8)
    for i in range(count):
        for _ in range(digits_per_image):
            digit = ink[random.integers(len(ink))]
            top, left = random.integers(0, canvas - side + 1, size=2)
            place = i, slice(top, top + side), slice(left, left + side)
            grey[place] = np.maximum(grey[place], 0.3 + 0.5 * digit)
            masks[place] |= digit >= INK
    grey += noise * random.standard_normal(grey.shape)
    images = (grey.clip(0, 1) * 255).round().astype(np.uint8)
    return Images(torch.from_numpy(images)[..., None], torch.from_numpy(masks))
