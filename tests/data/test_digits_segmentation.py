"""Digits on a canvas: where they lie, what their masks show, and that no digit is in two splits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from samtune.data import DataSplits, Images, load_dataset

ALONE = {"canvas": 16, "digits_per_image": 1, "noise": 0.0}
"""One digit of 16x16 fills the canvas: the image is the digit and nothing else."""


def load(**settings: object) -> DataSplits:
    return load_dataset("digits_segmentation", **settings)


def splits(data: DataSplits) -> list[Images]:
    return [data.train, data.val, data.open_test()]


def test_each_split_has_its_size_and_a_mask_for_each_image() -> None:
    for split, size in zip(splits(load(canvas=24)), (600, 150, 150), strict=True):
        assert split.images.shape == (size, 24, 24, 1)
        assert split.targets.shape == (size, 24, 24)
        assert split.targets.dtype == torch.uint8
        assert split.targets.unique().tolist() == [0, 1]


@pytest.mark.parametrize("split_seed", [0, 1])
def test_a_digit_is_drawn_from_its_own_split_twice_as_large(split_seed: int) -> None:
    data = load(**ALONE, split_seed=split_seed)
    source = load_dataset("digits", split_seed=split_seed)
    used = []
    for made, drawn_from in zip(splits(data), splits(source), strict=True):
        grey = drawn_from.images[..., 0].double() / 255
        known = {
            np.rint((0.3 + 0.5 * digit.numpy()) * 255).astype(np.uint8).tobytes(): digit >= 0.5
            for digit in grey
        }
        for image, mask in zip(made.images[..., 0], made.targets, strict=True):
            for i in (0, 1):  # each pixel of the digit is two by two pixels
                for j in (0, 1):
                    assert torch.equal(image[i::2, j::2], image[::2, ::2])
                    assert torch.equal(mask[i::2, j::2], mask[::2, ::2])
            strokes = known[image[::2, ::2].numpy().tobytes()]
            assert torch.equal(mask[::2, ::2].bool(), strokes)
        used.append({image.numpy().tobytes() for image in made.images})
    assert not used[0] & used[1]
    assert not used[0] & used[2]
    assert not used[1] & used[2]


def test_a_digit_lies_anywhere_on_the_canvas_equally_often() -> None:
    digit = (load_dataset("digits").train.images[..., 0] >= 128).double().mean(0)
    larger = digit.repeat_interleave(2, 0).repeat_interleave(2, 1)
    places = [
        F.pad(larger, [left, 4 - left, top, 4 - top]) for top in range(5) for left in range(5)
    ]
    found = load(canvas=20, digits_per_image=1).train.targets.double().mean(0)
    expected = torch.stack(places).mean(0)
    assert (found - expected).abs().max() < 0.07  # a share of 600 images is 0.02 off


def test_more_digits_are_more_foreground() -> None:
    def share(digits_per_image: int) -> float:
        masks = load(canvas=64, digits_per_image=digits_per_image).train.targets
        return masks.double().mean().item()

    one, three = share(1), share(3)
    assert 2.5 < three / one < 3  # they seldom overlap on so large a canvas


@pytest.mark.parametrize("noise", [0.01, 0.04])
def test_noise_has_its_deviation_and_changes_no_mask(noise: float) -> None:
    clear, noisy = load(noise=0.0), load(noise=noise)
    for one, other in zip(splits(clear), splits(noisy), strict=True):
        assert torch.equal(one.targets, other.targets)
        difference = (other.images.double() - one.images.double()) / 255
        assert difference.std().item() == pytest.approx(noise, rel=0.05)
        assert abs(difference.mean().item()) < 0.5 / 255


def test_the_split_seed_draws_the_places_and_the_noise() -> None:
    first, again, other = load(), load(), load(split_seed=1)
    for i, split in enumerate(splits(first)):
        assert torch.equal(split.images, splits(again)[i].images)
        assert torch.equal(split.targets, splits(again)[i].targets)
        assert not torch.equal(split.targets, splits(other)[i].targets)


@pytest.mark.parametrize("settings", [{}, {"canvas": 48, "noise": 0.0}, {"split_seed": 1}])
def test_mean_and_deviation_are_those_of_the_training_pixels(settings: dict[str, float]) -> None:
    data = load(**settings)
    pixels = data.train.images.numpy() / 255
    assert data.mean == pytest.approx([pixels.mean()], rel=1e-9)
    assert data.std == pytest.approx([pixels.std()], rel=1e-9)


def test_a_canvas_smaller_than_a_digit_is_refused() -> None:
    with pytest.raises(ValueError, match="canvas must be at least 16 pixels.* got 15"):
        load(canvas=15)
