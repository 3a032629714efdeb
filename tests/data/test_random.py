"""Noise with random labels: of the asked shape, evenly spread, and drawn from its seed alone."""

from __future__ import annotations

import pytest
import torch

from samtune.data import DataSplits, Images, load_dataset


def splits(data: DataSplits) -> list[Images]:
    return [data.train, data.val, data.open_test()]


@pytest.mark.parametrize(("images", "held_out"), [(1, 1), (7, 1), (8, 2), (100, 25)])
def test_there_are_a_quarter_as_many_images_to_validate_and_to_test(
    images: int, held_out: int
) -> None:
    data = load_dataset("random", images=images, image_size=(4, 6), channels=2, num_classes=7)
    assert [len(split) for split in splits(data)] == [images, held_out, held_out]
    assert (data.image_size, data.in_channels, data.num_classes) == ((4, 6), 2, 7)
    for split in splits(data):
        assert split.images.shape[1:] == (4, 6, 2)
    assert len(data.mean) == len(data.std) == 2


def test_pixels_and_labels_are_spread_evenly() -> None:
    data = load_dataset("random", images=4000, image_size=(8, 8), num_classes=4)
    pixels = torch.bincount(data.train.images.flatten().long(), minlength=256)
    assert len(pixels) == 256
    assert pixels.min() > 2700  # of 768,000: 3,000 each, give or take 55
    assert pixels.max() < 3300
    labels = torch.bincount(data.train.targets, minlength=4)
    assert labels.min() > 850  # 1,000 each, give or take 27
    assert labels.max() < 1150


def test_batches_have_mean_0_and_deviation_1() -> None:
    data = load_dataset("random", images=1000)
    images = torch.cat([b for b, _ in data.train_batches(500, torch.device("cpu")).in_order()])
    assert abs(images.mean().item()) < 0.01
    assert abs(images.std().item() - 1) < 0.01


def test_the_seed_draws_everything_and_no_two_splits_are_alike() -> None:
    settings = {"images": 8, "image_size": (4, 4)}
    drawn = [
        split.images[:2].numpy().tobytes()
        for seed in range(4)
        for split in splits(load_dataset("random", seed=seed, **settings))
    ]
    assert len(set(drawn)) == 12
    torch.manual_seed(5)
    again = splits(load_dataset("random", seed=1, **settings))
    assert [split.images[:2].numpy().tobytes() for split in again] == drawn[3:6]
    state = torch.get_rng_state()
    load_dataset("random", **settings)
    assert torch.equal(torch.get_rng_state(), state)
