"""One session of a study: who runs next, who goes on, and what is written when a trial ends.

It knows the study folder, the sampler and the trial scheduler, and no Ray: `adapters` and `run`
only carry its decisions to the workers. Everything it knows at its start comes from the journals.
"""

from __future__ import annotations

import contextlib
from collections import deque
from typing import Any, Protocol

from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.config.trial import counts_by
from samtune.errors import DamagedFileError
from samtune.study.folder import StudyFolder
from samtune.study.journal import now_ms
from samtune.study.keeping import Keeper
from samtune.study.study import Study, Trial
from samtune.study.trial_folder import BASELINE_KEY, Outcome, trial_key
from samtune.tuning.audit import Audited
from samtune.tuning.failures import Failures
from samtune.tuning.fixed import FixedRuns
from samtune.tuning.patience import Patience, StorageWaitError
from samtune.tuning.sampler import Sampler
from samtune.tuning.scheduler import new_scheduler
from samtune.tuning.warm_start import keep, past_studies

BY_USER = "by `samtune stop`"


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

    def on_cluster(self, sentence: str) -> None:
        """What is wrong with a node, or what the session waits for."""
        ...

    def on_wait(self, key: str, reason: str) -> None:
        """A trial cannot be written down, and waits for its storage."""
        ...

    def on_set_aside(self, key: str, reason: str) -> None:
        """A trial has waited long enough; it has no outcome, and the next session takes it up."""
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
        self.failures = Failures(config.study.max_failed_in_row, config.study.max_failed_share)
        self.set_aside: dict[str, str] = {}  # by key, what the storage said
        self._stopping = False
        self._asked_to_stop: set[str] = set()
        self._not_written: tuple[str, dict[str, Any], int] | None = None  # the next to hand out
        self._unwritten: dict[str, Outcome] = {}
        self._untidied: dict[str, Outcome] = {}
        self._storage = Patience(config.study.storage_wait)
        self._waiting: set[str] = set()
        self._values: dict[str, dict[int, float]] = {}
        self._ended: set[str] = set()
        self._running: set[str] = set()

        study = Study(folder, config)
        self._keeper = Keeper(study, session)
        known = study.trials
        sampled = [t for t in known if not t.is_baseline]
        self.sampler = FixedRuns(config.confirm.runs) if config.confirm else Sampler(config)
        rule = new_scheduler(config.study.scheduler, config.trial.training.epochs, config.mode)
        self.scheduler = Audited(rule, config.study.audit)
        self.budget = study.budget
        if past := past_studies(config, folder.root.parent):
            keep(past, folder.root)
        for t in (trial for other in past for trial in other.trials):
            self.sampler.add_ended(t.values, t.state, t.value, t.curve)
        for trial in known:
            self._recall(trial)
        self._first = [
            values
            for values in config.study.try_first
            if not any(values.items() <= t.values.items() for t in sampled)
        ]
        decided = {t.key for t in known if t.outcome is None and self._decide_anew(t)}
        self._unfinished = deque(t for t in known if t.outcome is None and t.key not in decided)
        self._next_number = folder.next_number()
        self._new = max(0, config.wanted_trials - len(sampled))
        self._baseline_due = config.study.has_baseline and len(sampled) == len(known)

    @property
    def to_run(self) -> int:
        """How many trials this session has to hand out in all."""
        new = 0 if self.budget.spent else self._new
        return len(self._unfinished) + new + self._baseline_due

    @property
    def has_decided(self) -> bool:
        """Whether a trial was ended in this session."""
        return bool(self._ended)

    @property
    def running(self) -> int:
        """How many trials are handed out and have not ended."""
        return len(self._running)

    @property
    def is_ending(self) -> bool:
        """Whether no trial will be handed out any more, whatever is left."""
        return self._stopping or bool(self.failures.verdict)

    def next_trial(self) -> str | None:
        """Hands out a trial and returns its key; None when there is none left.

        Raises:
            StorageWaitError: the trial cannot be written down yet; ask again later.
            OSError: it could not for as long as `study.storage_wait` says.
        """
        if self.is_ending:
            return None
        self._settle()
        if self._not_written:
            return self._hand_out(*self._not_written)
        if self._unfinished:
            trial = self._unfinished.popleft()
            return self._hand_out(trial.key, trial.values, len(trial.epochs))
        if self._baseline_due:
            self._baseline_due = False
            return self._hand_out(BASELINE_KEY, {"sam.rho": 0.0}, 0)
        if self._new and not self.budget.spent:
            self._new -= 1
            key = trial_key(self._next_number)
            self._next_number += 1
            given = self._first.pop(0) if self._first else None
            return self._hand_out(key, self.sampler.ask(key, given), 0)
        return None

    def finish(self) -> None:
        """Writes down what could not be written so far; the trials have ended."""
        self._settle()

    def stop_trial(self, key: str) -> None:
        """Ends one trial after its current epoch, unless that is its last."""
        self._asked_to_stop.add(key)

    def stop(self) -> None:
        """Ends the session: no new trials, and the running ones end after their current epoch."""
        self._stopping = True

    def on_epoch(
        self, key: str, epoch: int, metrics: dict[str, float], duration_s: float, replayed: bool
    ) -> bool:
        """Takes a journaled epoch; False if the scheduler or the user stops the trial here."""
        value = metrics[self.config.study.metric]
        values = self._values.setdefault(key, {})
        if epoch in values:
            return not self._stopping
        values[epoch] = value
        self._waiting.discard(key)
        if not replayed:
            self.budget.note_epoch(self.session, now_ms(), duration_s, metrics)
            self.listener.on_epoch(key, epoch, metrics, duration_s)
        if self._stopping:
            return False
        if key != BASELINE_KEY:
            if self.config.study.select == "best":
                self.budget.note_value(key, value)
            self.sampler.report(key, epoch, value)
        goes_on = key == BASELINE_KEY or self.scheduler.goes_on(key, epoch, value)
        asked = key in self._asked_to_stop
        if epoch == self.config.trial.training.epochs or (goes_on and not asked):
            return True
        self.end(key, Outcome("stopped", epoch, BY_USER if goes_on else ""), write=True)
        return False

    def end(self, key: str, outcome: Outcome, *, write: bool) -> None:
        """Takes note that a trial ended.

        Args:
            write: whether the outcome is the driver's to write down, not the worker's.
        """
        if key in self._ended:
            return
        self._ended.add(key)
        self._running.discard(key)
        if write:
            # A worker may have died after writing its own.
            outcome = self._written_outcome(key) or outcome
            self._unwritten[key] = outcome
        self._untidied[key] = outcome
        self._settle()
        self.failures.note(outcome.state, outcome.reason)
        value = self._selected(key)
        if key != BASELINE_KEY:
            if outcome.state == "finished" and value is not None:
                self.budget.note_value(key, value)
            self.sampler.tell(key, outcome.state, value)
        self.listener.on_end(key, outcome, value)

    def worker_lost_for_good(self, key: str, reason: str) -> None:
        """A trial whose workers were lost too often."""
        epochs = self._values.get(key, {})
        outcome = Outcome("failed", max(epochs, default=0) + 1, f"its worker was lost: {reason}")
        self.end(key, outcome, write=True)

    def on_fault(self, key: str, reason: str, *, gives_up: bool) -> bool:
        """A worker cannot read or write its trial; False if it should not try again.

        Args:
            gives_up: it has tried for long enough. The trial then has no outcome, since the fault
                is not its own, and the next session takes it up.
        """
        if gives_up:
            self._ended.add(key)
            self._running.discard(key)
            self.set_aside[key] = reason
            self.listener.on_set_aside(key, reason)
        elif key not in self._waiting:
            self._waiting.add(key)
            self.listener.on_wait(key, reason)
        return not self._stopping

    def _recall(self, trial: Trial) -> None:
        values = {e.epoch: e.metrics[self.config.study.metric] for e in trial.epochs}
        self._values[trial.key] = values
        if trial.is_baseline:
            return
        decided = list(values) if trial.outcome is not None else list(values)[:-1]
        for epoch in decided:
            self.scheduler.goes_on(trial.key, epoch, values[epoch])
        if trial.outcome is not None:
            state = trial.outcome.state
            self.sampler.add_ended(trial.values, state, trial.value, values)
        else:  # here and not when it is handed out: the sampler's memory goes by their order
            self.sampler.take_up(trial.key, trial.values)
            for epoch, value in values.items():
                self.sampler.report(trial.key, epoch, value)

    def _decide_anew(self, trial: Trial) -> bool:
        """Makes the decision that was due on an unfinished trial; whether it stops the trial.

        A driver that died after an epoch was journaled may not have asked the scheduler, or not
        have written down what it said.
        """
        last = trial.last_epoch
        if last is None or trial.is_baseline:
            return False
        value = last.metrics[self.config.study.metric]
        goes_on = self.scheduler.goes_on(trial.key, last.epoch, value)
        if goes_on or last.epoch == self.config.trial.training.epochs:
            return False
        self.end(trial.key, Outcome("stopped", last.epoch), write=True)
        return True

    def _hand_out(self, key: str, values: dict[str, Any], epochs_done: int) -> str:
        record = record_of(self.config, key, values)
        self._not_written = key, values, epochs_done
        try:
            self.folder.check_session(self.session)
            self.folder.trial(key).hand_out(record, self.session)
        except OSError as error:
            self._storage.bear(error)
            if "" not in self._waiting:
                self._waiting.add("")
                self.listener.on_wait(key, str(error))
            raise StorageWaitError(str(error)) from error
        self._storage.is_well()
        self._waiting.discard("")
        self._not_written = None
        self._running.add(key)
        self.listener.on_start(key, values, epochs_done)
        return key

    def _settle(self) -> None:
        """Writes down what the driver has to, and lets go of what ended trials need not keep.

        What cannot be written yet is tried again. An outcome that never was is decided again by the
        next session, from the same values.
        """
        self._write_outcomes()
        for key in [key for key in self._untidied if key not in self._unwritten]:
            outcome = self._untidied.pop(key)
            if key not in self.set_aside:
                can_win = self.config.study.select == "best" or outcome.state == "finished"
                self._keeper.ended(key, outcome.state, self._selected(key) if can_win else None)

    def _write_outcomes(self) -> None:
        if not self._unwritten:
            return
        with contextlib.suppress(OSError):
            self.folder.check_session(self.session)
            for key, outcome in list(self._unwritten.items()):
                self._write_outcome(key, outcome)

    def _write_outcome(self, key: str, outcome: Outcome) -> None:
        try:
            self.folder.trial(key).end(outcome, self.session)
        except OSError:
            return
        except DamagedFileError as error:  # the next session tells what is to be done
            self.set_aside[key] = str(error)
            self.listener.on_set_aside(key, str(error))
        del self._unwritten[key]

    def _written_outcome(self, key: str) -> Outcome | None:
        try:
            trial = self.folder.trial(key)
            trial.fetch()
            return trial.checked_outcome()[0]
        except OSError:
            return None

    def _selected(self, key: str) -> float | None:
        values = self._values.get(key)
        if not values:
            return None
        curve = [values[epoch] for epoch in sorted(values)]
        return counts_by(curve, self.config.study.select, self.config.mode)
