"""Mixup and CutMix: torchvision.transforms.v2 is the oracle, with the shares that numpy draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import v2

from samtune.data.batches import InMemoryBatches
from samtune.data.mixing import MixedBatches
from samtune.tasks import Classification

HEIGHT, WIDTH, CLASSES = 9, 12, 5


def batches(count: int = 24, batch_size: int = 8, masked: bool = False) -> InMemoryBatches:
    generator = torch.Generator().manual_seed(0)
    shape = (count, HEIGHT, WIDTH, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return InMemoryBatches(
        images,
        images[..., 0].clone() if masked else torch.arange(count) % CLASSES,
        batch_size=batch_size,
        mean=(0.5, 0.4, 0.3),
        std=(0.25, 0.3, 0.35),
        device=torch.device("cpu"),
    )


def mixed(count: int = 24, batch_size: int = 8, **alphas: float) -> MixedBatches:
    return MixedBatches(batches(count, batch_size), num_classes=CLASSES, **alphas)


class MixUp(v2.MixUp):
    """torchvision's with a share that was drawn already."""

    def __init__(self, share: float) -> None:
        super().__init__(num_classes=CLASSES)
        self.share = share

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"lam": self.share}


class CutMix(v2.CutMix):
    """torchvision's with a box that was drawn already: left, top, right, bottom."""

    def __init__(self, box: tuple[int, int, int, int]) -> None:
        super().__init__(num_classes=CLASSES)
        self.box = box

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        left, top, right, bottom = self.box
        covered = (right - left) * (bottom - top) / (HEIGHT * WIDTH)
        return {"box": self.box, "lam_adjusted": 1 - covered}


def drawn_box(share: float, random: np.random.Generator) -> tuple[int, int, int, int]:
    """The paper's: sides of sqrt(1 - share), anywhere, cut at the image's border."""
    y, x = int(random.integers(HEIGHT)), int(random.integers(WIDTH))
    half = 0.5 * math.sqrt(1 - share)
    down, across = int(half * HEIGHT), int(half * WIDTH)
    return max(x - across, 0), max(y - down, 0), min(x + across, WIDTH), min(y + down, HEIGHT)


def assert_same(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-6)


def test_mixup_is_torchvisions_with_a_share_from_beta() -> None:
    random = np.random.default_rng([3, 1])
    plain = batches().shuffled(3)
    for found, batch in zip(mixed(mixup=0.4).shuffled(3), plain, strict=True):
        assert_same(found, MixUp(random.beta(0.4, 0.4))(*batch))


def test_cutmix_is_torchvisions_with_a_share_from_beta() -> None:
    random = np.random.default_rng([3, 1])
    areas = set()
    plain = batches(400).shuffled(3)
    for found, batch in zip(mixed(400, cutmix=1.0).shuffled(3), plain, strict=True):
        box = drawn_box(random.beta(1.0, 1.0), random)
        assert_same(found, CutMix(box)(*batch))
        areas.add((box[2] - box[0]) * (box[3] - box[1]))
    assert len(areas) > 20


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_the_share_has_the_mean_and_the_spread_of_its_beta_distribution(alpha: float) -> None:
    shares = np.array(
        [
            float(targets[0].max())  # of an image and the one before it, of two classes
            for seed in range(300)
            for _, targets in mixed(batch_size=2, mixup=alpha).shuffled(seed)
            if int((targets[0] > 0).sum()) == 2
        ]
    )
    # The larger of two shares that add up to one: |x - 1/2| has the spread of x.
    variance = ((shares - 0.5) ** 2).mean()
    assert variance == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_with_both_about_half_of_the_batches_are_cut() -> None:
    def is_cut(images: Tensor, plain: Tensor) -> bool:
        """Each pixel of a cut image is one of two images' own."""
        own = (images == plain) | (images == plain.roll(1, 0))
        return bool(own.all())

    made = mixed(800, mixup=1.0, cutmix=1.0)
    cut = [
        is_cut(images, plain)
        for (images, _), (plain, _) in zip(made.shuffled(0), batches(800).shuffled(0), strict=True)
    ]
    assert 35 < sum(cut) < 65  # of 100: 50 give or take 5


def test_the_loss_is_that_of_both_classes_by_their_shares_also_when_it_is_smoothed() -> None:
    (_, targets), *_ = mixed(mixup=1.0).shuffled(0)
    (_, classes), *_ = batches().shuffled(0)
    (share,) = {
        round(float(t[own]), 5)
        for t, own, other in zip(targets, classes, classes.roll(1), strict=True)
        if own != other
    }
    logits = torch.randn(8, CLASSES, generator=torch.Generator().manual_seed(0))
    one, other = (
        F.cross_entropy(logits, c, label_smoothing=0.1) for c in (classes, classes.roll(1))
    )
    found = Classification(CLASSES, label_smoothing=0.1).loss(logits, logits, targets)
    torch.testing.assert_close(found, share * one + (1 - share) * other, rtol=1e-5, atol=0)


def test_mixing_changes_neither_the_order_nor_the_augmentation() -> None:
    """With so small an alpha every share is 0 or 1: a batch is itself, or is itself rolled on."""
    for (images, _), (plain, _) in zip(
        mixed(mixup=1e-9).shuffled(5), batches().shuffled(5), strict=True
    ):
        assert torch.equal(images, plain) or torch.equal(images, plain.roll(1, 0))


def test_the_same_seed_is_the_same_epoch_and_another_seed_another() -> None:
    made = mixed(mixup=1.0, cutmix=1.0)

    def epoch(seed: int) -> tuple[Tensor, Tensor]:
        images, targets = zip(*made.shuffled(seed), strict=True)
        return torch.cat(images), torch.cat(targets)

    first, again, other = epoch(0), epoch(0), epoch(1)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    state = torch.get_rng_state()
    epoch(2)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_evaluated_is_not_mixed() -> None:
    made = mixed(mixup=1.0, cutmix=1.0)
    assert len(made) == 24
    for one, other in zip(made.in_order(), batches().in_order(), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("alphas", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_mixed_batches_stay_channels_last(alphas: dict[str, float]) -> None:
    for images, targets in mixed(**alphas).shuffled(0):
        assert images.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(targets.sum(1), torch.ones(8))


def test_masks_cannot_be_mixed() -> None:
    made = MixedBatches(batches(masked=True), num_classes=CLASSES, mixup=1.0)
    with pytest.raises(ValueError, match=r"only classes \(B,\) can be mixed, got \(8, 9, 12\)"):
        next(made.shuffled(0))
