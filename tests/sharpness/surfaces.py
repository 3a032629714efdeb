"""Losses whose rise, Hessian and landscape are known by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.sharpness.loss import FixedLoss
from samtune.tasks import build_task


class OutputIsLoss:
    """A task whose models give the loss themselves."""

    def forward(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        return model(inputs)

    def loss(self, outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.mean()


class Quadratic(nn.Module):
    """1/2 sum a_i w_i^2, times each input."""

    def __init__(self, curvatures: Sequence[float], weights: Sequence[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([list(weights)], dtype=torch.float64))
        self.a = torch.tensor(curvatures, dtype=torch.float64)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * (self.a * self.w.square()).sum() / 2


class TwoLayers(nn.Module):
    """Without biases, so that a factor moves from one layer to the other and nothing changes."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False)
        with torch.no_grad():
            self.first.weight.mul_(factor)
            self.second.weight.div_(factor)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.second(F.relu(self.first(inputs)))


def loss_of(model: nn.Module, *inputs: float) -> FixedLoss:
    """Its own output is the loss, for a batch of one input each."""
    task: Any = OutputIsLoss()
    given = [torch.tensor([x], dtype=torch.float64) for x in inputs or (1.0,)]
    return FixedLoss(model, task, [(x, x) for x in given])


def classifying(model: nn.Module, batches: int = 2, features: int = 4) -> FixedLoss:
    """Cross entropy of three classes on random points."""
    random = torch.Generator().manual_seed(1)
    drawn = [
        (
            torch.randn(8, features, generator=random),
            torch.randint(0, 3, (8,), generator=random),
        )
        for _ in range(batches)
    ]
    return FixedLoss(model, build_task("classification", num_classes=3), drawn)
