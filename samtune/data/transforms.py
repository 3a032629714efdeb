"""Random crops that are resized, colours and RandAugment, for a whole batch of bytes at a time.

What is done to one image is what torchvision.transforms.v2 does to it, to a level of 255; but v2
draws once for all that it is given, and these draw for each image. The draws come from numpy on
the host; nothing makes the host wait for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samtune.data.augmentation import HIGHEST_MAGNITUDE

Array = np.ndarray[Any, Any]

RATIOS = 3 / 4, 4 / 3  # a crop's width to its height, at least and at most
TRIES = 10
MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
OPERATIONS = (
    *MOVES,
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
    "Identity",
)


def random_resized_crops(
    images: Tensor, masks: Tensor | None, least_area: float, random: np.random.Generator
) -> tuple[Tensor, Tensor | None]:
    """A random part of each image at the image's own size, and the same part of its mask.

    Images are interpolated linearly, masks take the nearest pixel.

    Args:
        images: uint8 (B, C, H, W).
        masks: (B, H, W).
        least_area: of a part, as a share of the image's; the most is 1.
    """
    height, width = images.shape[-2:]
    top, left, box_height, box_width = _boxes(len(images), height, width, least_area, random)
    places = _places(top, box_height, height), _places(left, box_width, width)
    y, x = (_to(place, images).float() for place in places)
    # From -1 at the first pixel's centre to 1 at the last one's.
    y, x = 2 * y / max(1, height - 1) - 1, 2 * x / max(1, width - 1) - 1
    grid = torch.stack(
        [x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], -1
    )
    cropped = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=True)
    if masks is not None:
        rows, columns = _nearest(top, box_height, height), _nearest(left, box_width, width)
        number = torch.arange(len(masks), device=masks.device)[:, None, None]
        masks = masks[number, _to(rows, masks)[:, :, None], _to(columns, masks)[:, None, :]]
    return cropped.round_().to(torch.uint8), masks


def color_jitter(images: Tensor, strength: float, random: np.random.Generator) -> Tensor:
    """Brightness, contrast and saturation of each image (B, C, H, W), changed independently.

    Args:
        strength: each factor is drawn from 1 - strength to 1 + strength.
    """
    count = len(images)
    factors = 1 + strength * random.uniform(-1, 1, size=(3, count))
    changes = (_brightness, _contrast, _saturation)
    orders = random.permuted(np.tile(np.arange(3), (count, 1)), axis=1)
    for place in range(3):
        for i, change in enumerate(changes):
            images = _changed(images, orders[:, place] == i, change, factors[i])
    return images


def rand_augment(
    images: Tensor, num_ops: int, magnitude: int, random: np.random.Generator
) -> Tensor:
    """RandAugment (Cubuk et al. 2020, arXiv:1909.13719) on each image (B, C, H, W).

    Args:
        num_ops: how many of the 14 operations follow each other, each drawn anew.
        magnitude: of them all, 0 to 30; those that have a direction take either.
    """
    from torchvision.transforms.v2 import functional as tv

    share = magnitude / HIGHEST_MAGNITUDE
    bits, threshold = round(8 - 4 * share), 255 * (1 - share)
    changes: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "Brightness": _brightness,
        "Color": _saturation,
        "Contrast": _contrast,
        "Sharpness": _sharpness,
        "Posterize": lambda chosen, _: tv.posterize(chosen, bits),
        "Solarize": lambda chosen, _: tv.solarize(chosen, threshold),
        "AutoContrast": lambda chosen, _: tv.autocontrast(chosen),
        "Equalize": lambda chosen, _: tv.equalize(chosen),
    }
    for _ in range(num_ops):
        drawn = random.integers(len(OPERATIONS), size=len(images))
        directed = np.where(random.random(len(images)) < 0.5, -share, share)
        images = _moved(images, drawn, directed)
        for name, change in changes.items():
            applies = drawn == OPERATIONS.index(name)
            images = _changed(images, applies, change, 1 + 0.9 * directed)
    return images


def _boxes(
    count: int, height: int, width: int, least_area: float, random: np.random.Generator
) -> tuple[Array, Array, Array, Array]:
    """Top, left, height and width of a random part of each image.

    Where no drawn box fits into the image it is the largest of a permitted ratio.
    """
    area = height * width * random.uniform(least_area, 1, size=(TRIES, count))
    narrow, wide = np.log(RATIOS)
    ratio = np.exp(random.uniform(narrow, wide, size=(TRIES, count)))
    heights, widths = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    first = fits.argmax(0), np.arange(count)
    largest = min(height, round(width / RATIOS[0])), min(width, round(height * RATIOS[1]))
    box_height, box_width = (
        np.where(fits.any(0), drawn[first], whole).astype(np.int64)
        for drawn, whole in zip((heights, widths), largest, strict=True)
    )
    top = random.integers(0, height - box_height + 1)
    left = random.integers(0, width - box_width + 1)
    return top, left, box_height, box_width


def _places(start: Array, length: Array, size: int) -> Array:
    """Where (B, size) pixels that spread over a stretch of pixels lie; its ends are not left."""
    within = (np.arange(size) + 0.5) * length[:, None] / size - 0.5
    places: Array = start[:, None] + within.clip(0, length[:, None] - 1)
    return places


def _nearest(start: Array, length: Array, size: int) -> Array:
    """The nearest pixel to each of these places."""
    places: Array = start[:, None] + (2 * np.arange(size) + 1) * length[:, None] // (2 * size)
    return places


def _changed(
    images: Tensor, applies: Array, change: Callable[[Tensor, Tensor], Tensor], factors: Array
) -> Tensor:
    """The images with some of them changed, each by its own factor."""
    index = np.flatnonzero(applies)
    if not len(index):
        return images
    # By index and not by mask: a mask's size would have to be asked of the device.
    chosen = _to(index, images)
    factor = _to(factors[index], images).float()[:, None, None, None]
    images[chosen] = change(images[chosen], factor)
    return images


def _brightness(images: Tensor, factor: Tensor) -> Tensor:
    return _bytes(images * factor)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, _grey(images).mean((1, 2, 3), keepdim=True), factor)


def _saturation(images: Tensor, factor: Tensor) -> Tensor:
    return images if images.shape[1] == 1 else _blend(images, _grey(images), factor)


def _sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Inside the border, away from or towards a mean of nine pixels, the middle one five times."""
    if min(images.shape[-2:]) <= 2:
        return images
    values = images.float()
    inner = values[..., 1:-1, 1:-1]
    smooth = ((9 * F.avg_pool2d(values, 3, stride=1) + 4 * inner) / 13).round_()
    values[..., 1:-1, 1:-1] = smooth + factor * (inner - smooth)
    return _bytes(values)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return _bytes(images * factor + other * (1 - factor))


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images.float()
    red, green, blue = images.float()[:, :, None].unbind(1)
    grey: Tensor = 0.2989 * red + 0.587 * green + 0.114 * blue
    return grey.floor_()


def _bytes(values: Tensor) -> Tensor:
    return values.clamp_(0, 255).to(torch.uint8)


def _moved(images: Tensor, drawn: Array, directed: Array) -> Tensor:
    """Those images sheared, shifted or turned for which that was drawn; what is uncovered is black.

    All in one go: a move is where each pixel (x, y), from the centre, is taken from.
    """
    height, width = images.shape[-2:]
    index = np.flatnonzero(drawn < len(MOVES))
    if not len(index):
        return images
    amount = directed[index]
    zero, one = np.zeros(len(index)), np.ones(len(index))
    shear, angle = 0.3 * amount, np.radians(30 * amount)
    across, down = (np.trunc(150 / 331 * side * amount) for side in (width, height))
    cos, sin = np.cos(angle), np.sin(angle)
    moves = np.array(  # (move, coefficient, image)
        [
            [one, shear, shear * height / 2, zero, one, zero],
            [one, zero, zero, shear, one, shear * width / 2],
            [one, zero, -across, zero, one, zero],
            [one, zero, zero, zero, one, -down],
            [cos, -sin, zero, sin, cos, zero],
        ]
    )
    coefficients = _to(moves[drawn[index], :, np.arange(len(index))], images).float()
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    a, b, c, d, e, f = coefficients[:, :, None, None].unbind(1)
    grid = torch.stack(
        [
            (a * x + b * y[:, None] + c) * 2 / width,
            (d * x + e * y[:, None] + f) * 2 / height,
        ],
        -1,
    )
    chosen = _to(index, images)
    moved = F.grid_sample(images[chosen].float(), grid, mode="nearest", align_corners=False)
    images[chosen] = moved.to(torch.uint8)
    return images


def _to(values: Array, like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device, non_blocking=True)
