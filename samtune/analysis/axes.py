"""Settings as columns of numbers from 0 to 1, for regression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samtune.config.schema import StudyConfig
from samtune.config.space import Choice, FloatRange, IntRange

MIDDLE = 0.5  # of a parameter that a trial does not have, since its condition does not hold

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """One searched parameter.

    Attributes:
        bounds: of a range; None where it is a choice.
        log: whether a range is one of magnitudes.
        levels: the choices, in order where they are numbers.
        is_ordered: whether one column holds it; else each level has its own.
    """

    path: str
    bounds: tuple[float, float] | None
    log: bool
    levels: tuple[Any, ...]
    is_ordered: bool

    @property
    def width(self) -> int:
        """How many columns hold it."""
        return 1 if self.is_ordered else len(self.levels)

    def columns(self, value: Any) -> list[float]:
        """A value's numbers."""
        if value is None and None not in self.levels:
            return [MIDDLE] * self.width
        if self.bounds is not None:
            return [place(value, *self.bounds, log=self.log)]
        if self.is_ordered:
            return [self.levels.index(value) / max(1, len(self.levels) - 1)]
        return [float(value == level) / math.sqrt(2) for level in self.levels]


def axes_of(config: StudyConfig) -> list[Axis]:
    """The search space's parameters, rho among them."""
    axes = []
    for path, distributions in config.search_space.items():
        ranges = [d for d in distributions if isinstance(d, FloatRange | IntRange)]
        choices = [v for d in distributions if isinstance(d, Choice) for v in d.choice]
        if choices:
            is_ordered = not ranges and all(_is_number(value) for value in choices)
            levels = sorted(set(choices)) if is_ordered else {repr(v): v for v in choices}.values()
            axes.append(Axis(path, None, False, tuple(levels), is_ordered))
        else:
            low, high = min(r.bounds[0] for r in ranges), max(r.bounds[1] for r in ranges)
            axes.append(Axis(path, (low, high), all(r.log for r in ranges), (), True))
    return axes


def place(value: float, low: float, high: float, *, log: bool) -> float:
    """Where a value lies between two ends: 0 at the lower, 1 at the upper."""
    if log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def matrix(axes: Sequence[Axis], settings: Sequence[dict[str, Any]]) -> Matrix:
    """One row for each of the settings; shape (settings, columns)."""
    rows = [[x for axis in axes for x in axis.columns(s.get(axis.path))] for s in settings]
    return np.array(rows, dtype=float).reshape(len(settings), sum(axis.width for axis in axes))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
