"""What stops weak trials: rules that look at journaled epochs and at nothing else.

A rule is told every epoch of every trial, in any order of trials, and answers whether the trial may
go on. Telling it the epochs of an old session again rebuilds what it knew, so a resumed study stops
trials as the first session would have; Ray's own ASHA forgets its rungs and never stops a NaN.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from samtune.config.schema import SchedulerConfig
from samtune.study.trial_folder import trial_number

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


class TrialScheduler(Protocol):
    """A rule that stops weak trials."""

    def goes_on(self, key: str, epoch: int, value: float) -> bool:
        """Notes a finite value; False if the trial should stop after this epoch."""
        ...


class RunAll:
    """Lets every trial run to its end."""

    def goes_on(self, key: str, epoch: int, value: float) -> bool:
        """Always True."""
        return True


class Asha:
    """Asynchronous successive halving, the stopping kind (Li et al. 2020, arXiv:1810.05934).

    A trial that reaches a rung goes on if it is among the best 1/reduction_factor of those that
    reached it so far; the first to arrive always goes on.
    """

    def __init__(
        self, rung_epochs: Sequence[int], reduction_factor: int, mode: Literal["min", "max"]
    ) -> None:
        self.rungs: dict[int, dict[str, float]] = {epoch: {} for epoch in rung_epochs}
        self._in_order: dict[int, list[float]] = {epoch: [] for epoch in rung_epochs}
        self.reduction_factor = reduction_factor
        self.sign = 1 if mode == "max" else -1

    def goes_on(self, key: str, epoch: int, value: float) -> bool:
        """Whether the trial passes the rung at this epoch; True between rungs."""
        rung = self.rungs.get(epoch)
        if rung is None or key in rung or not math.isfinite(value):
            return True
        score = self.sign * value
        others = self._in_order[epoch]
        cutoff = percentile(others, 100 * (1 - 1 / self.reduction_factor)) if others else score
        rung[key] = score
        bisect.insort(others, score)
        return score >= cutoff


class Hyperband:
    """Several `Asha` side by side, each with a later first rung (Li et al. 2018, arXiv:1603.06560).

    A rule that stops early is wrong about trials that start slowly; the brackets hedge against it.
    The last one stops nobody. Brackets begin as many trials as Hyperband's would, so that each
    spends about the same epochs; which is a trial's follows from its number, spread evenly.
    """

    def __init__(
        self, rung_epochs: Sequence[int], reduction_factor: int, mode: Literal["min", "max"]
    ) -> None:
        count = len(rung_epochs) + 1
        self.brackets = [Asha(rung_epochs[i:], reduction_factor, mode) for i in range(count)]
        begun = [reduction_factor**left / (left + 1) for left in reversed(range(count))]
        self._shares = np.cumsum(begun) / sum(begun)

    def bracket(self, key: str) -> int:
        """The index of the bracket that the trial is in."""
        spread = trial_number(key) * GOLDEN_RATIO % 1
        return int(np.searchsorted(self._shares, spread, side="right"))

    def goes_on(self, key: str, epoch: int, value: float) -> bool:
        """Whether the trial passes its bracket's rung at this epoch; True between rungs."""
        return self.brackets[self.bracket(key)].goes_on(key, epoch, value)


class Median:
    """Stops what is worse than the median of the running averages (Golovin et al. 2017).

    A trial is compared, by its best value so far, with the averages over the same epochs of the
    trials that got as far; at least two others must have.
    """

    def __init__(self, grace_epochs: int, mode: Literal["min", "max"]) -> None:
        self.grace_epochs = grace_epochs
        self.sign = 1 if mode == "max" else -1
        self._scores: dict[str, dict[int, float]] = {}
        self._averages: dict[int, list[float]] = {}  # by epoch, in order

    def goes_on(self, key: str, epoch: int, value: float) -> bool:
        """Whether the trial's best value reaches the median average of the others."""
        scores = self._scores.setdefault(key, {})
        if epoch in scores or not math.isfinite(value):
            return True
        scores[epoch] = self.sign * value
        others = self._averages.setdefault(epoch, [])
        count = len(others)
        median = (others[(count - 1) // 2] + others[count // 2]) / 2 if count > 1 else -math.inf
        bisect.insort(others, float(np.mean([s for e, s in scores.items() if e <= epoch])))
        return epoch < self.grace_epochs or max(scores.values()) >= median


def percentile(ordered: Sequence[float], percent: float) -> float:
    """What `numpy.percentile` says, to the last bit, of values that are in order already."""
    place = (len(ordered) - 1) * (percent / 100)
    below = math.floor(place)
    low, high, share = ordered[below], ordered[min(below + 1, len(ordered) - 1)], place - below
    # From the nearer of the two, as numpy does it.
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)


def new_scheduler(
    config: SchedulerConfig, epochs: int, mode: Literal["min", "max"]
) -> TrialScheduler:
    """The rule that `study.scheduler` names."""
    match config.name:
        case "asha":
            return Asha(config.rung_epochs(epochs), config.reduction_factor, mode)
        case "hyperband":
            return Hyperband(config.rung_epochs(epochs), config.reduction_factor, mode)
        case "median":
            return Median(config.grace(epochs), mode)
        case "none":
            return RunAll()
