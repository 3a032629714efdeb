"""One session of a study: who runs next, who goes on, and what is written when a trial ends.

It knows the study folder, the sampler and the trial scheduler, and no Ray: `trial` and `run` only
carry its decisions to the workers. Everything it knows at its start comes from the journals.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from samtune.config.schema import BEST, StudyConfig
from samtune.config.trials import record_of
from samtune.study.folder import StudyFolder
from samtune.study.study import Study, Trial
from samtune.study.trial_folder import BASELINE_KEY, Outcome, trial_key
from samtune.tuning.sampler import Sampler
from samtune.tuning.scheduler import new_scheduler


class Listener(Protocol):
    """Who wants to watch a session."""

    def on_start(self, key: str, values: dict[str, Any], epochs_done: int) -> None:
        """A trial was handed to a worker."""
        ...

    def on_epoch(self, key: str, epoch: int, metrics: dict[str, float], duration_s: float) -> None:
        """An epoch was finished in this session, and is in the journal."""
        ...

    def on_end(self, key: str, outcome: Outcome, value: float | None) -> None:
        """A trial ended, with the metric it counts by."""
        ...

    def on_retry(self, key: str, reason: str) -> None:
        """A trial's worker was lost; another one takes the trial up."""
        ...

    def on_interrupt(self) -> None:
        """A signal asks the session to end; called inside the signal's handler."""
        ...


class Search:
    """Decides; `session` is the number under which it hands out trials."""

    def __init__(
        self, folder: StudyFolder, config: StudyConfig, session: int, listener: Listener
    ) -> None:
        self.folder = folder
        self.config = config
        self.session = session
        self.listener = listener
        self.failed = 0
        self._stopping = False
        self._values: dict[str, dict[int, float]] = {}
        self._ended: set[str] = set()

        known = Study(folder, config).trials
        sampled = [t for t in known if not t.is_baseline]
        self.sampler = Sampler(config, drawn=len(sampled))
        self.scheduler = new_scheduler(
            config.study.scheduler, config.trial.training.epochs, config.mode
        )
        for trial in known:
            self._recall(trial)
        self._unfinished = deque(t for t in known if t.outcome is None)
        self._next_number = 1 + max((int(t.key[1:]) for t in known), default=0)
        self._new = max(0, config.wanted_trials - len(sampled))
        self._baseline_due = config.study.baseline and len(sampled) == len(known)

    @property
    def to_run(self) -> int:
        """How many trials this session has to hand out in all."""
        return len(self._unfinished) + self._new + self._baseline_due

    @property
    def has_given_up(self) -> bool:
        """Whether too many trials failed to go on."""
        return self.failed >= self.config.study.max_failed_trials

    def next_trial(self) -> str | None:
        """Hands out a trial and returns its key; None when there is none left."""
        if self.has_given_up or self._stopping:
            return None
        if self._unfinished:
            trial = self._unfinished.popleft()
            if not trial.is_baseline:
                self.sampler.take_up(trial.key, trial.values)
                for epoch, value in self._values[trial.key].items():
                    self.sampler.report(trial.key, epoch, value)
            return self._hand_out(trial.key, trial.values, len(trial.epochs))
        if self._baseline_due:
            self._baseline_due = False
            return self._hand_out(BASELINE_KEY, {"sam.rho": 0.0}, 0)
        if self._new:
            self._new -= 1
            key = trial_key(self._next_number)
            self._next_number += 1
            return self._hand_out(key, self.sampler.ask(key), 0)
        return None

    def stop(self) -> None:
        """Ends the session: no new trials, and the running ones end after their current epoch."""
        self._stopping = True

    def on_epoch(
        self, key: str, epoch: int, metrics: dict[str, float], duration_s: float, replayed: bool
    ) -> bool:
        """Takes a journaled epoch; False if the trial scheduler stops the trial here."""
        value = metrics[self.config.study.metric]
        values = self._values.setdefault(key, {})
        if epoch in values:
            return not self._stopping
        values[epoch] = value
        if not replayed:
            self.listener.on_epoch(key, epoch, metrics, duration_s)
        if self._stopping:
            return False
        if key == BASELINE_KEY:
            return True
        self.sampler.report(key, epoch, value)
        is_last = epoch == self.config.trial.training.epochs
        if self.scheduler.goes_on(key, epoch, value) or is_last:
            return True
        self.end(key, Outcome("stopped", epoch), write=True)
        return False

    def end(self, key: str, outcome: Outcome, *, write: bool) -> None:
        """Takes note that a trial ended.

        Args:
            write: whether the outcome is the driver's to write down, not the worker's.
        """
        if key in self._ended:
            return
        self._ended.add(key)
        if write:
            self.folder.check_session(self.session)
            folder = self.folder.trial(key)
            outcome = folder.outcome() or outcome  # a worker may have died after writing its own
            folder.end(outcome)
        if outcome.state in ("failed", "out_of_memory"):
            self.failed += 1
        value = self._selected(key)
        if key != BASELINE_KEY:
            self.sampler.tell(key, outcome.state, value)
        self.listener.on_end(key, outcome, value)

    def worker_lost_for_good(self, key: str, reason: str, *, write: bool = True) -> None:
        """A trial whose workers were lost too often.

        Args:
            write: False where the fault was not the trial's, as with a storage that was gone: then
                the trial has no outcome, and the next session takes it up.
        """
        epochs = self._values.get(key, {})
        outcome = Outcome("failed", max(epochs, default=0) + 1, f"its worker was lost: {reason}")
        self.end(key, outcome, write=write)

    def _recall(self, trial: Trial) -> None:
        values = {e.epoch: e.metrics[self.config.study.metric] for e in trial.epochs}
        self._values[trial.key] = values
        if trial.is_baseline:
            return
        for epoch, value in values.items():
            self.scheduler.goes_on(trial.key, epoch, value)
        if trial.outcome is not None:
            state = trial.outcome.state
            self.sampler.add_ended(trial.values, state, trial.value, values)

    def _hand_out(self, key: str, values: dict[str, Any], epochs_done: int) -> str:
        record = record_of(self.config, key, values)
        self.folder.check_session(self.session)
        self.folder.trial(key).hand_out(record, self.session)
        self.listener.on_start(key, values, epochs_done)
        return key

    def _selected(self, key: str) -> float | None:
        values = self._values.get(key)
        if not values:
            return None
        if self.config.study.select == "last":
            return values[max(values)]
        best: float = BEST[self.config.mode](values.values())
        return best
