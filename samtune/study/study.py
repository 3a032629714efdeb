"""Reading a study, finished or running, without Ray, MLflow or torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samtune.config.schema import BEST, StudyConfig, TrialConfig
from samtune.errors import SamtuneError, UnknownNameError
from samtune.study.folder import DEFAULT_STORAGE, StudyFolder
from samtune.study.journal import Entry, Journal
from samtune.study.trial_folder import (
    BASELINE_KEY,
    FAILED_STATES,
    Outcome,
    TrialFolder,
    TrialState,
)

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Trial:
    """One trial as its folder tells it.

    Attributes:
        values: what the sampler chose, by path into `trial:`.
        session: the one it was last handed out under.
        epochs: the finished ones in order.
    """

    key: str
    folder: TrialFolder
    values: dict[str, Any]
    config: TrialConfig
    session: int
    epochs: list[Entry]
    outcome: Outcome | None
    state: TrialState
    metric: str
    mode: str
    select: str

    @property
    def is_baseline(self) -> bool:
        """Whether it is the study's run without SAM."""
        return self.key == BASELINE_KEY

    @property
    def last_epoch(self) -> Entry | None:
        """The last finished epoch."""
        return self.epochs[-1] if self.epochs else None

    @cached_property
    def best_epoch(self) -> Entry | None:
        """The first epoch with the best metric."""
        best: Entry | None = BEST[self.mode](
            self.epochs, key=lambda e: e.metrics[self.metric], default=None
        )
        return best

    @property
    def selected_epoch(self) -> Entry | None:
        """The epoch the trial counts by, as `study.select` says."""
        return self.best_epoch if self.select == "best" else self.last_epoch

    @property
    def value(self) -> float | None:
        """The metric the trial counts by; None before the first epoch."""
        return self.selected_epoch.metrics[self.metric] if self.selected_epoch else None

    @property
    def precision(self) -> str:
        """`training.precision`; `auto` with what it came to, as in `auto (bf16)`."""
        return self.config.training.precision_in_words(e.precision for e in self.epochs)

    @property
    def can_win(self) -> bool:
        """Whether it may be called the best.

        Judged by the last epoch, only trials that reached theirs compare.
        """
        return bool(self.epochs) and (self.select == "best" or self.state == "finished")


class Study:
    """A study's trials; reads the folder once, when made."""

    def __init__(self, folder: StudyFolder, config: StudyConfig) -> None:
        self.folder = folder
        self.name = folder.name
        self.config = config
        self.session = folder.manifest.session
        self.is_running = folder.is_running
        self.trials = [self._read(trial) for trial in folder.trials()]

    @property
    def metric(self) -> str:
        """What trials are compared by."""
        return self.config.study.metric

    @property
    def baseline(self) -> Trial | None:
        """The run of the base trial without SAM."""
        return next((t for t in self.trials if t.is_baseline), None)

    @property
    def state(self) -> str:
        """`running`, `interrupted` or `finished`."""
        if self.is_running:
            return "running"
        return "interrupted" if self.left else "finished"

    @property
    def left(self) -> int:
        """How many trials are still to be run: begun ones, new ones, and the baseline."""
        sampled = sum(not t.is_baseline for t in self.trials)
        unfinished = sum(t.outcome is None for t in self.trials)
        baseline_due = self.config.study.baseline and self.baseline is None
        return unfinished + max(0, self.config.wanted_trials - sampled) + baseline_due

    @property
    def ranking(self) -> list[Trial]:
        """The trials that can win, best first; the earlier one of equals."""
        sign = -1 if self.config.mode == "max" else 1
        usable = [t for t in self.trials if t.can_win and t.value is not None]
        return sorted(usable, key=lambda t: (sign * (t.value or 0.0), t.key))

    @property
    def best(self) -> Trial | None:
        """The trial with the best metric, the baseline included."""
        return next(iter(self.ranking), None)

    def trial(self, key: str) -> Trial:
        """One trial.

        Raises:
            UnknownNameError: there is none of this key.
        """
        for trial in self.trials:
            if trial.key == key:
                return trial
        raise UnknownNameError("trial", key, [t.key for t in self.trials])

    @property
    def failed(self) -> list[Trial]:
        """The trials that ended in an error or for want of memory."""
        return [t for t in self.trials if t.state in FAILED_STATES]

    def counts(self) -> dict[str, int]:
        """How many trials are in each state."""
        return dict(Counter(t.state for t in self.trials))

    @property
    def tally(self) -> str:
        """The same in words: `20 finished, 5 failed`."""
        return ", ".join(f"{n} {state}" for state, n in self.counts().items()) or "no trial"

    def frame(self) -> pandas.DataFrame:
        """One row per finished epoch: trial, state, values, epoch and metrics."""
        import pandas

        return pandas.DataFrame(
            [
                {"trial": t.key, "state": t.state, **t.values, "epoch": e.epoch, **e.metrics}
                for t in self.trials
                for e in t.epochs
            ]
        )

    def _read(self, folder: TrialFolder) -> Trial:
        record = folder.record()
        assert record is not None
        outcome = folder.outcome()
        epochs = Journal(folder.journal).epochs()
        for entry in epochs:
            if record.metric not in entry.metrics:
                raise SamtuneError(
                    f"{folder.journal} is damaged (epoch {entry.epoch} has no {record.metric}); "
                    "restore it from a backup"
                )
        at_work = self.is_running and record.session == self.session
        state: TrialState = outcome.state if outcome else "running" if at_work else "interrupted"
        return Trial(
            key=folder.key,
            folder=folder,
            values=record.values,
            config=record.config,
            session=record.session,
            epochs=epochs,
            outcome=outcome,
            state=state,
            metric=record.metric,
            mode=record.mode,
            select=record.select,
        )


def open_study(name: str, storage: str | Path = DEFAULT_STORAGE) -> Study:
    """A study to read: its trials, the best, curves and a pandas frame.

    Raises:
        UnknownNameError: there is none of this name.
    """
    folder = StudyFolder.open(Path(storage), name)
    return Study(folder, folder.config())
