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

import numpy as np

from samtune.config.schema import counts_by
from samtune.study import Study, Trial

FEWEST_FINISHED = 2
MOST_FITTED = 400  # trials a surface is made of; its cost grows with their third power


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
    found = []
    gains: dict[int, tuple[float, float]] = {}
    for trial in sampled:
        epoch = len(trial.epochs)
        if trial.state == "finished":
            found.append(Scored(trial, value_at(trial, epoch), 0.0))
        elif trial.state == "stopped" and len(finished) >= FEWEST_FINISHED:
            if epoch not in gains:
                gains[epoch] = _gain(finished, epoch)
            mean, variance = gains[epoch]
            found.append(Scored(trial, value_at(trial, epoch) + mean, variance))
    return found


def thinned(used: list[Scored]) -> list[Scored]:
    """As many of them as a surface can be made of, spread evenly over the study."""
    if len(used) <= MOST_FITTED:
        return used
    return [used[i * len(used) // MOST_FITTED] for i in range(MOST_FITTED)]


def _gain(finished: Sequence[Trial], epoch: int) -> tuple[float, float]:
    """What finished trials gained from this epoch to their end: the mean, and one's variance."""
    gains = [value_at(trial, len(trial.epochs)) - value_at(trial, epoch) for trial in finished]
    mean, spread = float(np.mean(gains)), float(np.var(gains, ddof=1))
    # Of one more gain, seen from the mean of so many.
    return mean, spread * (1 + 1 / len(gains))


def value_at(trial: Trial, epoch: int) -> float:
    """What the trial counted by after this epoch."""
    values = [e.metrics[trial.metric] for e in trial.epochs[:epoch]]
    return counts_by(values, trial.select, trial.mode)
