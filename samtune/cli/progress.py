"""What is known of a session while it runs, whichever way it is shown."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from samtune.config.schema import StudyConfig
from samtune.config.trial import BEST
from samtune.study import Study
from samtune.study.trial_folder import BASELINE_KEY, Outcome

STOPPING = "stopping after the current epoch of each trial; Ctrl-C again ends at once"


@dataclass
class Running:
    """A trial at work.

    Attributes:
        epochs: how many it has finished.
        curve: the metric after each epoch of this session.
    """

    epochs: int
    curve: list[float] = field(default_factory=list)


class Progress:
    """A `Listener` that keeps count and shows nothing but that a signal was heard.

    Args:
        before: the study as earlier sessions left it; None for a new one.
        to_run: how many trials this session runs.
    """

    def __init__(self, config: StudyConfig, before: Study | None, to_run: int) -> None:
        self.config = config
        self.to_run = to_run
        self.started = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.values: dict[str, dict[str, Any]] = {}
        self.running: dict[str, Running] = {}
        self.best: tuple[str, float] | None = None
        self.baseline: float | None = None
        self.stopping = False
        self.trained_s = 0.0
        self._first_epoch_at: float | None = None
        self._epochs_here = 0
        self._ended_after: list[int] = []
        known = before.trials if before else []
        ended = [t for t in known if t.outcome is not None]
        self.total = len(ended) + before.left if before else to_run
        for trial in known:
            self.trained_s += trial.trained_s
        for trial in ended:
            self.values[trial.key] = trial.values
            if trial.is_baseline:
                self.baseline = trial.value
            elif trial.epochs:
                self._ended_after.append(len(trial.epochs))
            if trial.can_win:
                self._note(trial.key, trial.value)

    def on_start(self, key: str, values: dict[str, Any], epochs_done: int) -> None:
        """A trial begins, or goes on."""
        self.values[key] = values
        self.running[key] = Running(epochs_done)

    def on_epoch(self, key: str, epoch: int, metrics: dict[str, float], duration_s: float) -> None:
        """An epoch is safe on the disk."""
        value = metrics[self.config.study.metric]
        trial = self.running[key]
        trial.epochs = epoch
        trial.curve.append(value)
        self.trained_s += duration_s
        self._epochs_here += 1
        if self._first_epoch_at is None:
            self._first_epoch_at = time.monotonic() - duration_s
        if self.config.study.select == "best":
            self._note(key, value)

    def on_end(self, key: str, outcome: Outcome, value: float | None) -> None:
        """A trial ended."""
        self.running.pop(key, None)
        self.counts[outcome.state] += 1
        if key == BASELINE_KEY:
            self.baseline = value
        else:
            self._ended_after.append(outcome.epoch)
        if outcome.state == "finished" or self.config.study.select == "best":
            self._note(key, value)

    def on_retry(self, key: str, reason: str) -> None:
        """A worker was lost."""

    def on_cluster(self, sentence: str) -> None:
        """A node is left out, or none is there."""

    def on_wait(self, key: str, reason: str) -> None:
        """The storage failed."""

    def on_set_aside(self, key: str, reason: str) -> None:  # noqa: ARG002 - a listener's signature
        """The storage failed for too long."""
        self.running.pop(key, None)

    def on_interrupt(self) -> None:
        """A signal came; it is acknowledged at once, although the epochs take their time."""
        self.stopping = True
        self._acknowledge()

    @property
    def done(self) -> int:
        """How many trials have ended, in all sessions."""
        return self.total - self.to_run + sum(self.counts.values())

    @property
    def gain(self) -> float | None:
        """By how much the best is better than the finished baseline; None where that is unknown."""
        if self.best is None or self.baseline is None or self.best[0] == BASELINE_KEY:
            return None
        sign = 1 if self.config.mode == "max" else -1
        return sign * (self.best[1] - self.baseline)

    @property
    def left_s(self) -> float | None:
        """How long the rest may take at the pace so far; None before anything can be said.

        A trial is expected to go as far as those did that went at least as far as it has.
        """
        if self._first_epoch_at is None or len(self._ended_after) < 3:
            return None
        epochs = sum(
            self._expected(key, trial.epochs) - trial.epochs for key, trial in self.running.items()
        )
        waiting = self.total - self.done - len(self.running)
        epochs += max(0, waiting) * self._expected("", 0)
        pace = self._epochs_here / max(1e-9, time.monotonic() - self._first_epoch_at)
        return epochs / pace

    def epochs_of(self, key: str) -> int:
        """How many a trial may have; baselines of a confirmation may have more than others."""
        epochs = self.values.get(key, {}).get("training.epochs", self.config.trial.training.epochs)
        assert isinstance(epochs, int)
        return epochs

    def name(self, key: str) -> str:
        """A trial's key, with what it is where that is the baseline."""
        return f"{key} (baseline)" if key == BASELINE_KEY else key

    def is_best(self, key: str) -> bool:
        """Whether it is the best so far."""
        return self.best is not None and self.best[0] == key

    def _expected(self, key: str, epochs: int) -> float:
        whole = self.epochs_of(key)
        further = [e for e in self._ended_after if e > epochs]
        return sum(further) / len(further) if further and key != BASELINE_KEY else whole

    def _acknowledge(self) -> None:
        # Not `print`, which the signal may have interrupted. A closed terminal takes no words, and
        # the session must end cleanly all the same.
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), f"{STOPPING}\n".encode())

    def _note(self, key: str, value: float | None) -> None:
        if value is None:
            return
        if self.best is None or BEST[self.config.mode](self.best[1], value) != self.best[1]:
            self.best = key, value
