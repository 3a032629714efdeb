"""Crops that are resized, colours and RandAugment: torchvision.transforms.v2 is the oracle."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as tv

from samtune.data.augmentation import Augmentation
from samtune.data.transforms import (
    OPERATIONS,
    color_jitter,
    rand_augment,
    random_resized_crops,
)


def pictures(count: int, height: int = 20, width: int = 24, channels: int = 3) -> Tensor:
    """Smooth ones, with every shade: noise would hide what a crop or a turn does."""
    random = np.random.default_rng(count)
    coarse = torch.from_numpy(random.integers(0, 256, (count, channels, 4, 4)).astype(np.float32))
    return tv.resize(coarse, [height, width]).round().to(torch.uint8)


def assert_near(found: Tensor, expected: Tensor, *, share: float = 0.99) -> None:
    """The same to a level of 255 nearly everywhere: pixels between two may go to either."""
    assert found.dtype == expected.dtype == torch.uint8
    near = (found.int() - expected.int()).abs() <= 1
    assert near.double().mean() >= share


# --- crops that are resized


def test_a_resized_crop_is_torchvisions_of_one_box_and_its_mask_is_of_the_same_box() -> None:
    height, width = 6, 7
    image, mask = pictures(1, height, width), pictures(1, height, width, 1)[:, 0]
    spans = [
        [(start, end - start) for start in range(side) for end in range(start + 1, side + 1)]
        for side in (height, width)
    ]
    boxes = [(top, left, h, w) for (top, h), (left, w) in product(*spans)]
    size = [height, width]
    crops = torch.cat([tv.resized_crop(image, *box, size) for box in boxes])
    crops_of_mask = torch.cat(
        [tv.resized_crop(mask, *b, size, InterpolationMode.NEAREST_EXACT) for b in boxes]
    )
    found, masks = random_resized_crops(
        image.expand(200, -1, -1, -1), mask.expand(200, -1, -1), 0.3, np.random.default_rng(0)
    )
    assert masks is not None
    shown = set()
    for one, its_mask in zip(found, masks, strict=True):
        fits = (one.int() - crops.int()).abs().amax((1, 2, 3)) <= 1
        fits &= (crops_of_mask == its_mask).all((1, 2))
        assert fits.any()
        shown.add(int(fits.nonzero()[0]))
    assert len(shown) > 50


def test_the_area_and_the_ratio_of_a_crop_are_drawn_from_their_ranges() -> None:
    side, least = 60, 0.25
    across = (4 * torch.arange(side)).to(torch.uint8)
    image = torch.stack([across[:, None].expand(side, side), across.expand(side, side)])
    crops, _ = random_resized_crops(
        image.expand(2000, 2, side, side), None, least, np.random.default_rng(0)
    )
    first, last = crops[:, :, 0, 0].double() / 4, crops[:, :, -1, -1].double() / 4
    heights, widths = (last - first + 1).T
    area, ratio = heights * widths / side**2, widths / heights
    assert least - 0.02 < area.min() < least + 0.02
    assert area.max() > 0.95
    assert 3 / 4 - 0.03 < ratio.min() < 3 / 4 + 0.03
    assert 4 / 3 - 0.05 < ratio.max() < 4 / 3 + 0.05
    # Uniform from 1/4 to 1, but that an area a above 3/4 fits with probability ln a / ln 3/4 only:
    # a mean of (0.25 + 0.099) / (0.5 + 0.119).
    assert area.mean() == pytest.approx(0.564, abs=0.015)
    assert first.amin() == 0
    assert last.amax() == side - 1


def test_where_no_box_fits_the_largest_of_a_permitted_ratio_is_taken() -> None:
    # A strip of 1 : 40 has no part of nine tenths of its area that is less narrow than 3 : 4.
    strip = torch.arange(40, dtype=torch.uint8).expand(8, 1, 1, 40)
    crops, _ = random_resized_crops(strip, None, 0.9, np.random.default_rng(0))
    assert all(len(crop.unique()) == 1 for crop in crops)  # one pixel of 40, as large as the strip
    assert len(crops.unique()) > 3


# --- colours


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_change_as_torchvisions_do_with_the_factors_and_order_drawn(channels: int) -> None:
    images = pictures(30, channels=channels)
    found = color_jitter(images.clone(), 0.4, np.random.default_rng(3))

    random = np.random.default_rng(3)
    factors = 1 + 0.4 * random.uniform(-1, 1, size=(3, 30))
    orders = random.permuted(np.tile(np.arange(3), (30, 1)), axis=1)
    changes = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
    for i, image in enumerate(images):
        expected = image
        for which in orders[i]:
            expected = changes[which](expected, factors[which, i])
        assert_near(found[i], expected)
    assert {tuple(order) for order in orders} == set(permutations(range(3)))


# --- RandAugment


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("magnitude", [0, 9, 21, 30])
def test_every_operation_is_torchvisions_at_this_magnitude(magnitude: int, channels: int) -> None:
    count, height, width = 150, 20, 24
    images = pictures(count, height, width, channels)
    found = rand_augment(images.clone(), 1, magnitude, np.random.default_rng(7))

    random = np.random.default_rng(7)
    drawn = random.integers(len(OPERATIONS), size=count)
    negative = random.random(count) < 0.5
    theirs = v2.RandAugment()
    assert set(OPERATIONS) == set(theirs._AUGMENTATION_SPACE)
    seen = set()
    for i, image in enumerate(images):
        name = OPERATIONS[drawn[i]]
        magnitudes, signed = theirs._AUGMENTATION_SPACE[name]
        steps = magnitudes(31, height, width)
        amount = 0.0 if steps is None else float(steps[magnitude])
        amount = -amount if signed and negative[i] else amount
        expected = theirs._apply_image_or_video_transform(
            image, name, amount, InterpolationMode.NEAREST, theirs._fill
        )
        assert_near(found[i], expected, share=0.98)
        seen.add((name, bool(signed and negative[i])))
    assert len(seen) == 9 * 2 + 5  # nine take either direction, five have none


def test_operations_follow_each_other() -> None:
    images = pictures(40)
    random = np.random.default_rng(0)
    one_by_one = rand_augment(rand_augment(images.clone(), 1, 9, random), 1, 9, random)
    assert torch.equal(rand_augment(images.clone(), 2, 9, np.random.default_rng(0)), one_by_one)
    assert torch.equal(rand_augment(images.clone(), 0, 9, random), images)


# --- settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"random_resized_crop": 0.0}, "random_resized_crop must be a share above 0 .* got 0.0"),
        ({"color_jitter": 1.5}, "color_jitter must be from 0 to 1, got 1.5"),
        ({"randaugment_magnitude": 31}, "randaugment_magnitude must be from 0 to 30, got 31"),
    ],
)
def test_what_is_out_of_range_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation(**settings)
