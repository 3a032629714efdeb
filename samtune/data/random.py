"""Noise with random labels: nothing to learn, for measuring speed and memory."""

from __future__ import annotations

import torch

from samtune.data.splits import DataSplits, Images
from samtune.registry import Count, Size, register_dataset


@register_dataset("random")
def random(
    *,
    images: Count = 1024,
    image_size: tuple[Count, Count] = (32, 32),
    channels: Count = 3,
    num_classes: Count = 10,
    seed: Size = 0,
) -> DataSplits:
    """Random pixels with random labels, of any size and number; for benchmarks.

    Args:
        images: how many to train on; a quarter as many to validate, and to test.
        image_size: height and width in pixels.
        channels: 1 for grey, 3 for colour.
        num_classes: how many labels there are.
        seed: draws everything.
    """

    def draw(count: int, split: int) -> Images:
        generator = torch.Generator().manual_seed(3 * seed + split)
        shape = (count, *image_size, channels)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return Images(pixels, torch.randint(0, num_classes, (count,), generator=generator))

    held_out = max(1, images // 4)
    return DataSplits(
        task="classification",
        num_classes=num_classes,
        train=draw(images, 0),
        val=draw(held_out, 1),
        open_test=lambda: draw(held_out, 2),
        mean=(0.5,) * channels,
        std=(0.2887,) * channels,  # of a uniform distribution: 1 / sqrt(12)
    )
