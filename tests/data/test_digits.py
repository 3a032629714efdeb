"""The digits: those of scikit-learn, each once, with wrong labels in the training split alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from samtune.data import DataSplits, Images, load_dataset


def splits(data: DataSplits) -> list[Images]:
    return [data.train, data.val, data.open_test()]


def contents(split: Images) -> list[bytes]:
    return [image.numpy().tobytes() for image in split.images]


def test_every_image_of_scikit_learn_is_in_one_split_with_its_label() -> None:
    bunch = load_digits()  # 17 shades of grey, from 0 to 16
    expected = Counter(
        (np.rint(image * 255 / 16).astype(np.uint8).tobytes(), int(label))
        for image, label in zip(bunch.images, bunch.target, strict=True)
    )
    found = Counter(
        pair
        for split in splits(load_dataset("digits"))
        for pair in zip(contents(split), split.targets.tolist(), strict=True)
    )
    assert found == expected
    assert found.total() == 1797


@pytest.mark.parametrize("split_seed", [0, 1, 2])
def test_every_class_has_its_share_of_each_split(split_seed: int) -> None:
    of_all = torch.bincount(torch.from_numpy(load_digits().target))
    for split, size in zip(
        splits(load_dataset("digits", split_seed=split_seed)), (1200, 297, 300), strict=True
    ):
        assert len(split) == size
        found = torch.bincount(split.targets, minlength=10)
        assert (found - of_all * size / 1797).abs().max() < 2


@pytest.mark.parametrize(("label_noise", "wrong"), [(0.0, 0), (0.4, 480), (0.0999, 120)])
def test_only_training_labels_are_wrong(label_noise: float, wrong: int) -> None:
    clean, noisy = load_dataset("digits"), load_dataset("digits", label_noise=label_noise)
    for one, other in zip(splits(clean), splits(noisy), strict=True):
        assert torch.equal(one.images, other.images)
    assert int((clean.train.targets != noisy.train.targets).sum()) == wrong
    assert torch.equal(clean.val.targets, noisy.val.targets)
    assert torch.equal(clean.open_test().targets, noisy.open_test().targets)


def test_the_split_seed_draws_the_splits_and_the_wrong_labels() -> None:
    first, again, other = (
        load_dataset("digits", label_noise=0.4, split_seed=seed) for seed in (0, 0, 1)
    )
    for i, split in enumerate(splits(first)):
        assert contents(split) == contents(splits(again)[i])
        assert torch.equal(split.targets, splits(again)[i].targets)
        assert set(contents(split)) != set(contents(splits(other)[i]))


@pytest.mark.parametrize("split_seed", [0, 1])
def test_mean_and_deviation_are_those_of_the_training_pixels(split_seed: int) -> None:
    data = load_dataset("digits", split_seed=split_seed)
    pixels = data.train.images.numpy() / 255
    assert data.mean == pytest.approx([pixels.mean()], rel=1e-9)
    assert data.std == pytest.approx([pixels.std()], rel=1e-9)
    images = torch.cat([b for b, _ in data.train_batches(400, torch.device("cpu")).in_order()])
    assert abs(images.double().mean().item()) < 1e-6
    assert abs(images.double().std(correction=0).item() - 1) < 1e-6
