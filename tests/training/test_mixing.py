"""Training on mixed images: what SAM's two passes see, and what the training loss is of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.config.trial import TrialConfig
from samtune.data import DataSplits, load_dataset
from samtune.registry import register_model
from samtune.training.loop import train
from samtune.training.state import set_up

CPU = torch.device("cpu")
SEEN: list[Tensor] = []


@register_model("test_watched_net")
class WatchedNet(nn.Sequential):
    """A perceptron that keeps the images that it is trained on."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            SEEN.append(images.clone())
        logits: Tensor = super().forward(images)
        return logits


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return load_dataset("digits")


def trial(rho: float = 0.0, **training: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "model": {"name": "test_watched_net"},
            "dataset": {"name": "digits"},
            "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
            "sam": {"rho": rho},
            "training": {"epochs": 2, "batch_size": 100, "precision": "fp32", **training},
        }
    )


def losses_of(config: TrialConfig, data: DataSplits) -> list[float]:
    state = set_up(config, data, CPU)
    return [r.metrics["train_loss"] for r in train(state, config, data, CPU)]


@pytest.mark.parametrize("setting", ["mixup", "cutmix"])
def test_both_passes_of_sam_see_the_same_mixed_batch(setting: str, digits: DataSplits) -> None:
    SEEN.clear()
    losses_of(trial(rho=0.1, epochs=1, **{setting: 1.0}), digits)
    assert len(SEEN) == 2 * 12
    plain = digits.train_batches(100, CPU).shuffled(
        int(np.random.SeedSequence([0, 1]).generate_state(2)[1])
    )
    for at_w, at_neighbor, (images, _) in zip(SEEN[::2], SEEN[1::2], plain, strict=True):
        assert torch.equal(at_w, at_neighbor)
        assert not torch.equal(at_w, images)


def test_a_climb_on_a_share_sees_that_share_of_the_mixed_batch(digits: DataSplits) -> None:
    SEEN.clear()
    config = trial(rho=0.1, epochs=1, mixup=1.0)
    config = config.model_copy(
        update={"sam": config.sam.model_copy(update={"ascent_fraction": 0.25})}
    )
    losses_of(config, digits)
    for quarter, whole in zip(SEEN[::2], SEEN[1::2], strict=True):
        assert torch.equal(quarter, whole[:25])


def test_micro_batches_share_a_mixed_batch(digits: DataSplits) -> None:
    whole = losses_of(trial(mixup=0.4, label_smoothing=0.1), digits)
    parts = losses_of(trial(mixup=0.4, label_smoothing=0.1, micro_batch_size=30), digits)
    assert whole == pytest.approx(parts, rel=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_the_training_loss_is_that_of_a_loop_of_plain_torch(
    alpha: float, smoothing: float, digits: DataSplits
) -> None:
    """Mixed by hand, the loss of either class by its share; unmixed bit for bit."""
    config = trial(mixup=alpha, label_smoothing=smoothing, lr_schedule="constant")
    model = set_up(config, digits, CPU).model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
    expected = []
    for epoch in (1, 2):
        seed = int(np.random.SeedSequence([0, epoch]).generate_state(2)[1])
        random = np.random.default_rng([seed, 1])
        losses = []
        for images, classes in digits.train_batches(100, CPU).shuffled(seed):
            share = random.beta(alpha, alpha) if alpha else 1.0
            mixed = share * images + (1 - share) * images.roll(1, 0) if alpha else images
            logits = model(mixed)
            loss = F.cross_entropy(logits, classes, label_smoothing=smoothing)
            if alpha:
                other = F.cross_entropy(logits, classes.roll(1), label_smoothing=smoothing)
                loss = share * loss + (1 - share) * other
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        expected.append(torch.stack(losses).mean().item())
    found = losses_of(config, digits)
    assert found == (pytest.approx(expected, rel=1e-5) if alpha else expected)
