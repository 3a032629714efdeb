"""Reading a study, finished or running, without Ray, MLflow or torch."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from samtune.config.baseline import baseline_name
from samtune.config.schema import StudyConfig
from samtune.config.trial import BEST, TrialConfig, TrialRecord
from samtune.errors import DamagedFileError, SamtuneError, UnknownNameError
from samtune.study.budget import Budget
from samtune.study.damage import Damage
from samtune.study.folder import DEFAULT_STORAGE, StudyFolder
from samtune.study.index import Content, Head, Index, Stamp, is_settled, stamp_of
from samtune.study.journal import Entry, Journal
from samtune.study.renaming import open_folder
from samtune.study.storage import storage_path
from samtune.study.trial_folder import (
    BASELINE_KEY,
    FAILED_STATES,
    Outcome,
    TrialFolder,
    TrialState,
    trial_number,
)
from samtune.working_copy import current

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False)
class Trial:
    """One trial as its folder tells it.

    Attributes:
        session: the one it was last handed out under.
        read: what else there is, which is parsed when it is first asked for.
    """

    key: str
    folder: TrialFolder
    session: int
    outcome: Outcome | None
    state: TrialState
    metric: str
    mode: str
    select: str
    read: Callable[[], Content] = field(repr=False)

    def __repr__(self) -> str:
        return f"<Trial {self.key}: {self.state}>"

    @classmethod
    def of(
        cls,
        folder: TrialFolder,
        record: TrialRecord,
        epochs: list[Entry],
        outcome: Outcome | None,
        state: TrialState,
    ) -> Self:
        """One that was read from its own files."""
        content = Content(record, epochs)
        return cls(
            key=folder.key,
            folder=folder,
            session=record.session,
            outcome=outcome,
            state=state,
            metric=record.metric,
            mode=record.mode,
            select=record.select,
            read=lambda: content,
        )

    @cached_property
    def _content(self) -> Content:
        return self.read()

    @property
    def values(self) -> dict[str, Any]:
        """What the sampler chose, by path into `trial:`."""
        return self._content.record.values

    @property
    def config(self) -> TrialConfig:
        """All of its settings."""
        return self._content.record.config

    @property
    def epochs(self) -> list[Entry]:
        """The finished ones in order."""
        return self._content.epochs

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

    @cached_property
    def value(self) -> float | None:
        """The metric the trial counts by; None before the first epoch."""
        return self.selected_epoch.metrics[self.metric] if self.selected_epoch else None

    @property
    def trained_s(self) -> float:
        """How many seconds its epochs took."""
        return sum(entry.duration_s for entry in self.epochs)

    @property
    def precision(self) -> str:
        """`training.precision`; `auto` with what it came to, as in `auto (bf16)`."""
        return self.config.training.precision_in_words(e.precision for e in self.epochs)

    @property
    def can_win(self) -> bool:
        """Whether it may be called the best.

        Judged by the last epoch, only trials that reached theirs compare.
        """
        return self.value is not None and (self.select == "best" or self.state == "finished")

    @property
    def may_go_on(self) -> bool:
        """Whether a session may take it up where it is: it has not ended, or has failed."""
        return self.outcome is None or self.state in FAILED_STATES

    @property
    def weights_files(self) -> dict[str, str]:
        """The files with its best epoch's weights and those it counts by, with their digests.

        A last epoch that was not the best so far has its weights in its training state alone.
        """
        best, chosen = self.best_epoch, self.selected_epoch
        if best is None or chosen is None:
            return {}
        files = {best.weights: best.weights_sha256}
        if chosen.weights:
            return files | {chosen.weights: chosen.weights_sha256}
        return files | {chosen.state: chosen.sha256}


class Study:
    """A study's trials; reads the folder once, when made.

    Args:
        whole: read every file, whatever the index says.

    Attributes:
        trials: those that can be read, in order.
        damage: what is damaged. A damaged journal counts up to there; a trial whose `trial.json`
            is damaged is set aside: it is not among `trials`, and no other gets its key.
    """

    trial_class: ClassVar[type[Trial]] = Trial

    def __init__(self, folder: StudyFolder, config: StudyConfig, *, whole: bool = False) -> None:
        self.folder = folder
        self.name = folder.name
        self.config = config
        folder.fetch()
        manifest = folder.manifest
        self.session = manifest.session
        self.is_archived = manifest.archived
        self.is_running = folder.is_running
        self.damage: list[Damage] = []
        self._stamps: dict[str, Stamp] = {}
        self._index = Index(folder.root / "index", manifest.study_id)
        if not whole:
            self._index.read()
        read = [self._trial(trial) for trial in self._folders()]
        self.trials = [trial for trial in read if trial is not None]
        self._index.close()

    @property
    def metric(self) -> str:
        """What trials are compared by."""
        return self.config.study.metric

    @cached_property
    def baseline(self) -> Trial | None:
        """The run of the base trial without SAM."""
        return next((t for t in self.trials if t.is_baseline), None)

    @cached_property
    def tuned_baseline(self) -> Study | None:
        """The study that tunes the optimizer alone, as far as it is; None where none was begun."""
        if self.config.study.baseline != "tuned":
            return None
        storage, name = self.folder.root.parent, baseline_name(self.name)
        if not current(storage / name / "manifest.json").exists():
            return None
        try:
            folder = StudyFolder.open(storage, name)
            found = Study(folder, folder.config())
        except SamtuneError:
            return None  # `samtune resume` says what is wrong with it
        owner = found.config.baseline_of
        is_own = owner is not None and owner.study_id == self.folder.manifest.study_id
        return found if is_own else None

    @property
    def state(self) -> str:
        """`running`, `interrupted` or `finished`."""
        if self.is_running:
            return "running"
        return "interrupted" if self.left else "finished"

    @cached_property
    def left(self) -> int:
        """How many trials are still to be run: begun ones, new ones, and the baseline."""
        sampled = sum(not t.is_baseline for t in self.trials)
        unfinished = sum(t.outcome is None for t in self.trials)
        baseline_due = self.config.study.has_baseline and self.baseline is None
        new = max(0, self.config.wanted_trials - sampled)
        if new and self.config.study.has_budget and self.budget.spent:
            new = 0
        return unfinished + new + baseline_due

    @cached_property
    def budget(self) -> Budget:
        """What was spent of hours, and whether the target is reached."""
        budget = Budget(self.config.study, self.config.mode)
        for trial in self.trials:
            for entry in trial.epochs:
                budget.note_epoch(entry.session, entry.time_ms, entry.duration_s, entry.metrics)
            if not trial.is_baseline and trial.can_win and trial.value is not None:
                budget.note_value(trial.key, trial.value)
        return budget

    @cached_property
    def ranking(self) -> list[Trial]:
        """The trials that can win, best first; the earlier one of equals."""
        sign = -1 if self.config.mode == "max" else 1
        usable = [t for t in self.trials if t.can_win and t.value is not None]
        return sorted(usable, key=lambda t: (sign * (t.value or 0.0), trial_number(t.key)))

    @property
    def best(self) -> Trial | None:
        """The trial with the best metric, the baseline included."""
        return next(iter(self.ranking), None)

    @cached_property
    def source(self) -> str:
        """A digest of all that this was read from; empty where a change might not change it.

        It says which files of which settings were read, not what stands in them: a copy of the
        folder has another one.
        """
        if self.is_running or not all(map(is_settled, self._stamps.values())):
            return ""
        said = [self.folder.study_id, self.config.model_dump_json(), sorted(self._stamps.items())]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def trial(self, key: str) -> Trial:
        """One trial.

        Raises:
            UnknownNameError: there is none of this key.
            SamtuneError: it is set aside, being damaged.
        """
        for trial in self.trials:
            if trial.key == key:
                return trial
        for damage in self.damage:
            if damage.where == f"trials/{key}/trial.json":
                raise SamtuneError(str(damage))
        raise UnknownNameError("trial", key, [t.key for t in self.trials])

    def damage_of(self, key: str) -> list[Damage]:
        """What is damaged of one trial."""
        return [damage for damage in self.damage if damage.where.startswith(f"trials/{key}/")]

    @property
    def failed(self) -> list[Trial]:
        """The trials that ended in an error or for want of memory."""
        return [t for t in self.trials if t.state in FAILED_STATES]

    @property
    def failures(self) -> dict[str, list[Trial]]:
        """The same by state and reason, as in `failed: ValueError: ...`."""
        found: dict[str, list[Trial]] = {}
        for trial in self.failed:
            reason = trial.outcome.reason if trial.outcome else ""
            found.setdefault(f"{trial.state}: {reason}", []).append(trial)
        return found

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

    def _folders(self) -> list[TrialFolder]:
        return self.folder.trials()

    def _trial(self, folder: TrialFolder) -> Trial | None:
        found = self._index.find(folder)
        if found is None:
            return self._read(folder)
        head, read = found
        self._stamps[folder.key] = head.stamp
        trial = self.trial_class(
            key=folder.key,
            folder=folder,
            session=head.session,
            outcome=Outcome(head.state, head.epoch, head.reason),
            state=head.state,
            metric=head.metric,
            mode=head.mode,
            select=head.select,
            read=read,
        )
        trial.__dict__["value"] = head.value
        return trial

    def _read(self, folder: TrialFolder) -> Trial | None:
        # Before reading: what is written in between makes it another one.
        stamp, damaged = stamp_of(str(folder.root)), len(self.damage)
        self._stamps[folder.key] = stamp
        record = self._record(folder)
        if record is None:
            return None
        where = f"trials/{folder.key}"
        history = Journal(folder.journal).read()
        epochs = history.epochs()
        if history.damage:
            remedy = (
                f"it counts up to epoch {len(epochs)}; `samtune resume` trains later ones again"
            )
            found = f"is damaged: {history.damage}"
            self.damage.append(Damage(f"{where}/epochs.jsonl", found, remedy))
        outcome, wrong = folder.checked_outcome(len(epochs), record)
        if wrong:
            remedy = "`samtune resume` goes on with the trial"
            self.damage.append(Damage(f"{where}/outcome.json", wrong, remedy))
        at_work = self.is_running and record.session == self.session
        state: TrialState = outcome.state if outcome else "running" if at_work else "interrupted"
        trial = self.trial_class.of(folder, record, epochs, outcome, state)
        if outcome and len(self.damage) == damaged:
            said = record.session, record.metric, record.mode, record.select
            ended = outcome.state, outcome.epoch, outcome.reason
            head = Head(folder.key, stamp, *said, *ended, trial.value)
            self._index.add(head, Content(record, epochs))
        return trial

    def _record(self, folder: TrialFolder) -> TrialRecord | None:
        """What the trial was handed out with; None where that is damaged."""
        remedy = "the trial is set aside until it is restored from a backup"
        if folder.key == BASELINE_KEY and self.config.study.has_baseline:
            remedy = "`samtune resume` writes it anew"
        found = "is gone"
        try:
            record = folder.record()
            if record and record.key == folder.key:
                return record
            found = f"is that of {record.key}" if record else found
        except DamagedFileError as error:
            found = f"is damaged ({error.reason})"
        self.damage.append(Damage(f"trials/{folder.key}/trial.json", found, remedy))
        return None


def open_study(name: str, storage: str | Path = DEFAULT_STORAGE) -> Study:
    """A study to read: its trials, the best, curves and a pandas frame.

    Raises:
        UnknownNameError: there is none of this name.
    """
    folder = open_folder(storage_path(storage), name)
    return Study(folder, folder.config())
