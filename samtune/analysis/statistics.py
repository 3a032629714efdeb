"""What repeated training runs allow one to say: means, paired differences, and their intervals.

Runs that share a seed are a pair. Intervals are Student's at 95 %, of the training's randomness: at
five seeds a bootstrap covers too little. What a test split of few images adds is `split_error`.
Where nothing can be said (one pair, no spread) the result says so, and has no interval.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CONFIDENCE = 0.95
MOST_EXACT_PAIRS = 14  # of which all 2**14 sign flips are tried
RANDOM_FLIPS = 20_000
Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Mean:
    """The mean of one setting's runs.

    Attributes:
        half_width: of the 95 % interval; None for a single run.
    """

    count: int
    mean: float
    half_width: float | None


@dataclass(frozen=True)
class Difference:
    """By how much one setting is above another, over runs in pairs.

    Attributes:
        half_width: of the 95 % interval; None where there is none, and `note` says why.
        p_value: of the paired t test, two-sided.
        p_sign_flip: of the sign-flip permutation test, two-sided; it assumes no normality, but
            cannot fall below 2 / 2**pairs.
        correlation: of the two runs of a pair: what pairing them has bought.
    """

    pairs: int
    mean: float
    half_width: float | None = None
    p_value: float | None = None
    p_sign_flip: float | None = None
    correlation: float | None = None
    note: str = ""

    @property
    def low(self) -> float | None:
        """The interval's lower end."""
        return None if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        """The interval's upper end."""
        return None if self.half_width is None else self.mean + self.half_width


def mean_interval(values: Sequence[float]) -> Mean:
    """The mean with the half width of its 95 % t interval.

    Raises:
        ValueError: there are no values, or some are not finite.
    """
    x = _finite(values)
    if len(x) < 2:
        return Mean(len(x), float(x[0]), None)
    from scipy import stats  # here as below, since it takes a second to import

    width = stats.t.ppf((1 + CONFIDENCE) / 2, len(x) - 1) * stats.sem(x)
    return Mean(len(x), float(x.mean()), float(width))


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """`ours` minus `theirs`, pair by pair.

    Raises:
        ValueError: they are not as many, none, or some are not finite.
    """
    x, y = _finite(ours), _finite(theirs)
    if len(x) != len(y):
        raise ValueError(f"pairs need as many on both sides, got {len(x)} and {len(y)}")
    mean = float((x - y).mean())
    if len(x) < 2:
        return Difference(1, mean, note="one pair shows no spread")
    if _is_constant(x - y):
        note = f"the difference is the same in all {len(x)} pairs, which shows no spread"
        return Difference(len(x), mean, correlation=_correlation(x, y), note=note)
    from scipy import stats

    test = stats.ttest_rel(x, y)
    interval = test.confidence_interval(CONFIDENCE)
    return Difference(
        len(x),
        mean,
        float(interval.high - interval.low) / 2,
        float(test.pvalue),
        sign_flip_p_value(x - y),
        _correlation(x, y),
    )


def sign_flip_p_value(differences: Sequence[float] | Numbers) -> float:
    """How often flipping signs at random gives a mean at least as far from 0; two-sided.

    Exact up to 14 differences; beyond, of 20,000 random flips, always the same ones.
    """
    x = _finite(differences)
    exact = len(x) <= MOST_EXACT_PAIRS
    if exact:
        signs = np.array(list(itertools.product((1, -1), repeat=len(x))))
    else:
        signs = np.random.default_rng(0).choice((1, -1), size=(RANDOM_FLIPS, len(x)))
    sums = np.abs(signs @ x)
    observed = abs(float(x.sum()))
    extreme = int(np.count_nonzero(sums >= observed - 1e-12 * np.abs(x).sum()))
    # What was observed is itself one of the ways that signs can fall.
    return extreme / len(sums) if exact else (extreme + 1) / (len(sums) + 1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """The p values adjusted for being several (Holm 1979); None where there was no test."""
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        adjusted[i] = highest
    return adjusted


def split_error(share: float, count: int) -> float:
    """Half the width of the 95 % interval that `count` images leave around a share of them.

    Wilson's, which holds at the ends of the range, too.
    """
    from scipy import stats

    test = stats.binomtest(round(share * count), count)
    interval = test.proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.high - interval.low) / 2


def cannot_be_told_apart(scores: Mapping[str, Sequence[float]]) -> list[str]:
    """The setting with the highest mean, and those that these pairs do not tell from it.

    Told apart is what the paired t test, adjusted by Holm over all others, gives less than 5 %.

    Args:
        scores: higher is better; the same seeds in the same order for each.
    """
    best = max(scores, key=lambda name: float(np.mean(scores[name])))
    others = [name for name in scores if name != best]
    p_values = holm([paired_difference(scores[best], scores[o]).p_value for o in others])
    unclear = {o for o, p in zip(others, p_values, strict=True) if p is None or p >= 1 - CONFIDENCE}
    return [name for name in scores if name == best or name in unclear]


def _finite(values: Sequence[float] | Numbers) -> Numbers:
    x = np.asarray(values, dtype=np.float64)
    if not len(x) or not np.isfinite(x).all():
        raise ValueError(f"finite numbers are needed, at least one, got {list(values)}")
    return x


def _is_constant(x: Numbers) -> bool:
    """Whether what differs is rounding only."""
    return bool(np.ptp(x) <= 1e-12 * max(1.0, float(np.abs(x).max())))


def _correlation(x: Numbers, y: Numbers) -> float | None:
    if len(x) < 3 or _is_constant(x) or _is_constant(y):
        return None
    r = float(np.corrcoef(x, y)[0, 1])
    return r if math.isfinite(r) else None
