"""What a trial's score is where the trial was stopped before its last epoch.

A value after 5 epochs does not compare with one after 15. A stopped trial's score is therefore what
it had, plus what the finished trials gained on average from that epoch to their end. How much those
gains differ from each other is how uncertain such a score is, and it weighs as little. A scheduler
lets the better trials finish, so that this flatters the stopped ones if anything: they are known to
have been worse. Without two finished trials nothing can be said of a gain, and stopped trials have
no score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from samtune.config.trial import counts_by
from samtune.study import Study, Trial

T = TypeVar("T")

FEWEST_FINISHED = 2
MOST = 400  # trials a surface is made of; its cost grows with their third power


@dataclass(frozen=True)
class Scored:
    """A trial with its score at the last epoch.

    Attributes:
        value: the study's metric, as `study.select` counts it.
        variance: of what was added to a stopped trial's value; 0 for a finished one.
    """

    trial: Trial
    value: float
    variance: float


def scored(study: Study) -> list[Scored]:
    """Every sampled trial that finished or was stopped, with its score; in order."""
    sampled = [t for t in study.trials if not t.is_baseline and t.epochs]
    finished = [t for t in sampled if t.state == "finished"]
    gains: dict[int, tuple[float, float]] = {}  # by epoch: mean, and variance of one more
    found = []
    for trial in sampled:
        if trial.state == "finished":
            found.append(Scored(trial, value_at(trial, len(trial.epochs)), 0.0))
        elif trial.state == "stopped" and len(finished) >= FEWEST_FINISHED:
            epoch = len(trial.epochs)
            if epoch not in gains:
                gains[epoch] = _gains(finished, epoch)
            mean, variance = gains[epoch]
            found.append(Scored(trial, value_at(trial, epoch) + mean, variance))
    return found


def _gains(finished: Sequence[Trial], epoch: int) -> tuple[float, float]:
    """What they gained from an epoch to their end: the mean, and the variance of one more gain."""
    gains = [value_at(f, len(f.epochs)) - value_at(f, epoch) for f in finished]
    return float(np.mean(gains)), float(np.var(gains, ddof=1)) * (1 + 1 / len(gains))


def thinned(found: Sequence[T], most: int = MOST) -> list[T]:
    """At most so many of them, evenly spread."""
    return [found[i * len(found) // most] for i in range(most)] if len(found) > most else [*found]


def value_at(trial: Trial, epoch: int) -> float:
    """What the trial counted by after this epoch."""
    values = [e.metrics[trial.metric] for e in trial.epochs[:epoch]]
    return counts_by(values, trial.select, trial.mode)
