"""SAM's own measure: how much the loss rises within a distance rho of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean, stdev

import torch

from samtune.sam import SAM
from samtune.sharpness.loss import Batch, FixedLoss
from samtune.sharpness.result import Rise

STEPS = 5


def loss_rise(
    loss: FixedLoss,
    rho: float,
    *,
    adaptive: bool = False,
    steps: int = STEPS,
    tick: Callable[[], None] = lambda: None,
) -> Rise:
    """The mean over batches of max L(w + e) - L(w) over ||e|| <= rho, as far as climbing finds it.

    Each batch climbs by itself, as in training. The first step is SAM's: e = rho * g / ||g||, with
    g the gradient at w. Each further one does the same with the gradient found at the last
    neighbor: projected ascent with a step so long that every point lies on the sphere of radius
    rho, where a maximum that is longer than rho away leaves it. What is found is a lower bound.

    Args:
        adaptive: ASAM's climb and distance, ||e / w|| <= rho.
        tick: called after each batch.
    """
    climb = SAM(loss.params, torch.optim.SGD, rho=rho, adaptive=adaptive, lr=0.0)
    found = []
    for batch in loss.batches:
        found.append(_climbs(loss, climb, batch, steps))
        tick()
    loss.model.zero_grad()
    highest = [max(climbs) for climbs in found]
    is_finite = all(math.isfinite(rise) for rise in highest)
    error = stdev(highest) / math.sqrt(len(highest)) if is_finite and len(highest) > 1 else None
    return Rise(
        rho, adaptive, _finite(fmean(climbs[0] for climbs in found)), _finite(fmean(highest)), error
    )


def _climbs(loss: FixedLoss, climb: SAM, batch: Batch, steps: int) -> list[float]:
    """The rise at each neighbor in turn; infinite where the loss or its slope is."""
    home = loss.backward(batch)
    rises: list[float] = []
    for _ in range(steps):
        if not loss.has_finite_gradients():
            return [*rises, math.inf]
        with climb.at_worst_neighbor():
            there = loss.backward(batch)
        rises.append(there - home if math.isfinite(there) else math.inf)
    return rises


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
