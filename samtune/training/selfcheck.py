"""Does SAM do on this very model what it promises? Five claims, each tried on one small batch.

Models can surprise: a layer that keeps statistics of its own, a weight that is used now and then, a
module that copies its weights. Seconds here are cheaper than a study of the wrong thing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from samtune.models import build_model
from samtune.registry import MODELS
from samtune.sam import SAM, frozen_batchnorm_stats
from samtune.tasks import Task, build_task
from samtune.training.loop import batch_loss

RHO = 0.05
PASSES = 11  # forward and backward, in all claims together
SEED = 0


@dataclass(frozen=True)
class Finding:
    """One claim and whether it holds.

    Attributes:
        detail: the number that was found.
    """

    claim: str
    holds: bool
    detail: str


def check_model(
    name: str,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    **params: Any,
) -> list[Finding]:
    """Tries SAM on a registered model, with random images of this size.

    Raises:
        UnknownNameError: no such model.
        ValueError: the model cannot be built from these values.
    """

    def build() -> nn.Module:
        return build_model(
            name, num_classes=num_classes, in_channels=in_channels, image_size=image_size, **params
        )

    torch.manual_seed(SEED)
    task_name = MODELS[name].task or "classification"
    inputs = torch.randn(8, in_channels, *image_size)
    places = image_size if task_name == "segmentation" else ()
    targets = torch.randint(0, num_classes, (8, *places))
    return check_sam(build, build_task(task_name), inputs, targets)


def check_sam(
    build: Callable[[], nn.Module], task: Task, inputs: Tensor, targets: Tensor
) -> list[Finding]:
    """Tries SAM on one batch.

    Args:
        build: makes the model anew for each claim; copies would not be like it in all.
    """
    checks = (_distance, _at_the_neighbor, _coming_home, _statistics, _base_optimizer)
    return [check(lambda: _Trial(build, task, inputs, targets)) for check in checks]


class _Trial:
    """A fresh model in training mode, always with the same weights, and a batch for it."""

    def __init__(
        self, build: Callable[[], nn.Module], task: Task, inputs: Tensor, targets: Tensor
    ) -> None:
        torch.manual_seed(SEED)
        self.model = build().train()
        self._task, self._inputs, self._targets = task, inputs, targets

    def backward(self) -> None:
        """One pass, always with the same dropout."""
        torch.autograd.backward(self.loss())

    def loss(self) -> Tensor:
        """Half a pass."""
        torch.manual_seed(SEED)
        return batch_loss(self.model, self._task, self._inputs, self._targets)

    def optimizer(self, kind: Callable[..., Any], **settings: Any) -> Any:
        """An optimizer over the model's weights."""
        return kind(self.model.parameters(), lr=0.1, momentum=0.9, **settings)

    def sam(self, rho: float) -> SAM:
        """SAM over SGD."""
        sam: SAM = self.optimizer(SAM, base_optimizer=torch.optim.SGD, rho=rho)
        return sam

    def weights(self) -> list[Tensor]:
        """Copies of the parameters."""
        return [p.detach().clone() for p in self.model.parameters()]

    def buffers(self) -> list[Tensor]:
        """Copies of everything else that the model keeps, such as running statistics."""
        return [b.detach().clone() for b in self.model.buffers()]


NewTrial = Callable[[], _Trial]


def _distance(new_trial: NewTrial) -> Finding:
    trial = new_trial()
    before = trial.weights()
    trial.backward()
    with trial.sam(RHO).at_worst_neighbor():
        # In float64: what is to be found is a rounding error.
        squares = [
            float((p.detach().double() - w).square().sum())
            for p, w in zip(trial.model.parameters(), before, strict=True)
        ]
    norm = math.sqrt(sum(squares))
    holds = abs(norm - RHO) <= 1e-3 * RHO
    return Finding("the neighbor is rho away", holds, f"{norm:.6f} for rho = {RHO}")


def _at_the_neighbor(new_trial: NewTrial) -> Finding:
    """A layer that keeps its own view of the weights would compute the second pass at home."""
    trial, other = new_trial(), new_trial()
    trial.backward()
    other.backward()  # so that what else a pass changes is the same
    with trial.sam(RHO).at_worst_neighbor(), torch.no_grad():
        for theirs, ours in zip(other.model.parameters(), trial.model.parameters(), strict=True):
            theirs.copy_(ours)
        found = _same([trial.loss()], [other.loss()])
    return Finding("the second pass computes at the neighbor", *found)


def _coming_home(new_trial: NewTrial) -> Finding:
    trial = new_trial()
    before = trial.weights()
    trial.backward()
    with trial.sam(RHO).at_worst_neighbor(), frozen_batchnorm_stats(trial.model):
        trial.backward()
    return Finding("the weights come home bit for bit", *_same(before, trial.weights()))


def _statistics(new_trial: NewTrial) -> Finding:
    trial = new_trial()
    trial.backward()
    before = trial.buffers()
    with trial.sam(RHO).at_worst_neighbor(), frozen_batchnorm_stats(trial.model):
        trial.backward()
    return Finding("the second pass moves no statistics", *_same(before, trial.buffers()))


def _base_optimizer(new_trial: NewTrial) -> Finding:
    trial, other = new_trial(), new_trial()
    sam, base = trial.sam(0.0), other.optimizer(torch.optim.SGD)
    for _ in range(2):
        trial.backward()
        sam.descend()
        sam.zero_grad()
        other.backward()
        base.step()
        base.zero_grad()
    found = _same(trial.weights() + trial.buffers(), other.weights() + other.buffers())
    return Finding("rho = 0 is the base optimizer bit for bit", *found)


def _same(one: list[Tensor], other: list[Tensor]) -> tuple[bool, str]:
    pairs = zip(one, other, strict=True)
    differing = sum(not torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in pairs)
    return not differing, f"{differing} of {len(one)} tensors differ"
