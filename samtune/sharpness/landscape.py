"""The loss along random directions, each filter of which is as long as the weights' own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from samtune.sharpness.loss import FixedLoss

LINE_POINTS = 41


def positions(points: int) -> list[float]:
    """So many places from -1 to 1, evenly spread; 0 is among those of an odd number."""
    return [2 * i / (points - 1) - 1 for i in range(points)]


def directions(loss: FixedLoss, count: int, seed: int) -> list[list[Tensor]]:
    """Filter-normalised random directions (Li et al. 2018, arXiv:1712.09913).

    Each filter of a direction has the norm of the filter of the weights that it is added to, so
    that the scale of the weights, which many networks do not depend on, has no say. Weights of one
    dimension, biases and those of norm layers, stay where they are. Models of the same shape get
    the same random numbers for the same seed.
    """
    random = torch.Generator().manual_seed(seed)
    axes = _filter_axes(loss.model)
    return [[_direction(p, axes.get(p, 0), random) for p in loss.params] for _ in range(count)]


def along_line(
    loss: FixedLoss,
    direction: Sequence[Tensor],
    at: Sequence[float],
    tick: Callable[[], None] = lambda: None,
) -> list[float | None]:
    """The loss at w + a * direction for each a; None where it is not finite."""
    [row] = on_plane(loss, [direction, direction], at, [0.0], tick)
    return row


@torch.no_grad()
def on_plane(
    loss: FixedLoss,
    both: Sequence[Sequence[Tensor]],
    at: Sequence[float],
    rows_at: Sequence[float],
    tick: Callable[[], None] = lambda: None,
) -> list[list[float | None]]:
    """The loss at w + a * first + b * second: a row for each b, in it a value for each a."""
    found: list[list[float | None]] = []
    with loss.staying() as home:
        for b in rows_at:
            row: list[float | None] = []
            for a in at:
                for p, weights, first, second in zip(loss.params, home, *both, strict=True):
                    p.copy_(weights + a * first + b * second)
                value = loss.value()
                row.append(value if math.isfinite(value) else None)
                tick()
            found.append(row)
    return found


def _direction(weights: Tensor, axis: int, random: torch.Generator) -> Tensor:
    if weights.ndim <= 1:
        return torch.zeros_like(weights)
    drawn = torch.randn(weights.shape, generator=random).to(weights)
    others = [i for i in range(weights.ndim) if i != axis]
    norms, own = (torch.linalg.vector_norm(t, dim=others, keepdim=True) for t in (weights, drawn))
    scaled: Tensor = drawn * (norms / own)
    return scaled.detach()


def _filter_axes(model: nn.Module) -> dict[Tensor, int]:
    """Along which axis a weight's filters lie, where that is not the first."""
    modules = (m for m in model.modules() if isinstance(m, _ConvTransposeNd))
    return {module.weight: 1 for module in modules}
