"""Whether an exported file computes what the trial's model does, on images of its data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from samtune.data import DataSplits
from samtune.errors import SamtuneError
from samtune.export.base import ExportedModel
from samtune.study.weights import TrainedModel

IMAGES = 64
BATCHES = (1, 2, 7)
"""Sizes of the first batches; the rest is one more."""
TOLERANCE = 1e-4
"""Of an output, relative to the largest where that is above 1."""


def as_they_are(data: DataSplits) -> DataSplits:
    """The same splits, whose batches are not normalised: pixels go from 0 to 1."""
    channels = data.in_channels
    return replace(data, mean=(0.0,) * channels, std=(1.0,) * channels)


def plain_images(data: DataSplits, count: int) -> Tensor:
    """The first validation images: float32 (B, C, H, W) from 0 to 1, at least one of them."""
    return _first(as_they_are(data), count)


@torch.no_grad()
def check_same(loaded: ExportedModel, trained: TrainedModel) -> float:
    """The largest difference between the file's outputs and the trial's model's, in fp32.

    The model sees batches as evaluation gives them; the file sees the same images as people have
    them, as uint8 and from 0 to 1, in batches of 1, 2, 7 and the rest.

    Raises:
        SamtuneError: it is not within the tolerance, or the file computes only some batches.
    """
    task = loaded.about.build_task()
    expected = task.scores(trained.model(_first(trained.data, IMAGES)))
    images = plain_images(trained.data, IMAGES)
    seen = ((images, "0 to 1"), ((images * 255).round().to(torch.uint8), "uint8"))
    worst = max(_difference(loaded, given, expected, what) for given, what in seen)
    allowed = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not worst <= allowed:  # NaN is not
        raise SamtuneError(
            f"the exported file gives other outputs than the trial's model, by up to {worst:.3g}; "
            "it is removed. Take another --format"
        )
    return worst


def _first(data: DataSplits, count: int) -> Tensor:
    """As evaluation gives them; a split with fewer images gives all."""
    return next(iter(data.val_batches(count, torch.device("cpu")).in_order()))[0]


def _difference(loaded: ExportedModel, images: Tensor, expected: Tensor, what: str) -> float:
    worst, start = [], 0
    for size in _sizes(len(images)):
        part = slice(start, start + size)
        start += size
        try:
            found = loaded(images[part])
        except Exception as error:  # any runtime
            raise SamtuneError(
                f"the exported file does not take {size} images ({what}): "
                f"{' '.join(str(error).split())[:200]}; it is removed. Take another --format"
            ) from error
        if found.shape != expected[part].shape:
            raise SamtuneError(
                f"the exported file gives {tuple(found.shape)} for {size} images, the trial's "
                f"model {tuple(expected[part].shape)}; it is removed. Take another --format"
            )
        worst.append((found - expected[part]).abs().max())
    return float(torch.stack(worst).max())


def _sizes(count: int) -> Sequence[int]:
    sizes: list[int] = []
    for size in (*BATCHES, count):
        sizes.append(min(size, count - sum(sizes)))
    return [size for size in sizes if size]
