"""Which weights a study keeps, and how it lets go of the others.

A trial that has ended needs no training state any more, and only the best few keep their weights,
as `study.keep_weights` says: a study of a thousand trials must not fill the disk. The driver lets
go as trials end, `samtune gc` of what is left from before. That a trial's weights are let go is
written down before they are removed: what is missing without that word is damage.

Nothing is taken from trials that have not ended, from those that failed, which `resume
--retry-failed` takes up where they were, and from damaged ones; of the baseline only its states.
"""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from samtune.errors import DamagedFileError
from samtune.files import remove
from samtune.study.folder import StudyFolder
from samtune.study.journal import Journal
from samtune.study.study import Study, Trial
from samtune.study.trial_folder import (
    BASELINE_KEY,
    FAILED_STATES,
    LetGo,
    TrialFolder,
    TrialState,
    trial_key,
    trial_number,
)
from samtune.working_copy import file_size


@dataclass(frozen=True)
class Spare:
    """What one ended trial need not keep.

    Attributes:
        files: each with its bytes.
        why: its weights are among them, and why; None where they stay.
    """

    trial: TrialFolder
    files: dict[Path, int]
    why: LetGo | None

    @property
    def size(self) -> int:
        """Bytes that removing it frees."""
        return sum(self.files.values())

    def remove(self) -> None:
        """Lets go of it; done twice, it does no more than once.

        Raises:
            OSError: the storage does not take it.
        """
        if self.why and self.trial.let_go() is None:
            self.trial.note_let_go(self.why)
        for path in self.files:
            remove(path)


class Keeper:
    """Lets go of what a study need not keep, as its trials end.

    Args:
        study: as it was when the session began.
        session: the driver's; once another one has taken the study over, nothing is removed.
    """

    def __init__(self, study: Study, session: int) -> None:
        self._folder = study.folder
        self._session = session
        self._keep = study.config.keep_weights
        self._sign = -1 if study.config.mode == "max" else 1
        ranked = ((t.key, t.value) for t in _ranking(study))
        self._ranking = [self._place(key, value) for key, value in ranked if value is not None]
        self._sweep(study)

    def _sweep(self, study: Study) -> None:
        """Lets go of what earlier sessions did not."""
        with contextlib.suppress(OSError, DamagedFileError):
            self._folder.check_session(self._session)
            for spare in spares(study):
                spare.remove()

    def ended(self, key: str, state: TrialState, value: float | None) -> None:
        """Takes in a trial whose outcome is on the disk.

        What the storage does not take now is left to the next session.

        Args:
            value: the metric it counts by; None where it cannot win.

        Raises:
            FencedError: another driver has taken the study over.
        """
        if state in FAILED_STATES:
            return
        for other, rank in self._relieved(key, value):
            why = _why(other, rank, len(self._ranking), self._keep)
            with contextlib.suppress(OSError, DamagedFileError):
                self._folder.check_session(self._session)
                folder = self._folder.trial(other)
                folder.fetch()
                _spare(folder, () if why else _read(folder).weights_files, why).remove()

    def _relieved(self, key: str, value: float | None) -> Iterator[tuple[str, int | None]]:
        """Whom this end concerns, and the rank of each: the trial itself, and whom it displaces."""
        if key == BASELINE_KEY or value is None:
            yield key, None
            return
        place = self._place(key, value)
        before = bisect.bisect(self._ranking, place)
        self._ranking.insert(before, place)
        yield key, before + 1
        if self._keep is not None and before < self._keep < len(self._ranking):
            yield trial_key(self._ranking[self._keep][1]), self._keep + 1

    def _place(self, key: str, value: float) -> tuple[float, int]:
        return self._sign * value, trial_number(key)


def collect(folder: StudyFolder, keep: int | None = None, *, remove: bool = True) -> list[Spare]:
    """What a study's ended trials need not keep, removed.

    Args:
        keep: how many trials keep their weights; None is what the study says.
        remove: False only looks.

    Raises:
        SamtuneError: a driver is at work, which does this by itself.
    """
    with folder.held() if remove else contextlib.nullcontext():
        config = folder.config()
        if keep is not None:
            search = config.study.model_copy(update={"keep_weights": keep})
            config = config.model_copy(update={"study": search})
        found = list(spares(Study(folder, config)))
        for spare in found if remove else ():
            spare.remove()
    return found


def spares(study: Study) -> Iterator[Spare]:
    """What a study's ended trials need not keep, with at least one file each.

    States stay where the weights are not whole: perhaps they can be had from those.
    """
    ranked = {trial.key: rank for rank, trial in enumerate(_ranking(study), 1)}
    for trial in study.trials:
        if trial.may_go_on or study.damage_of(trial.key):
            continue
        why = _why(trial.key, ranked.get(trial.key), len(ranked), study.config.keep_weights)
        kept = {} if why else trial.weights_files
        spare = _spare(trial.folder, kept, why)
        if spare.files and all(trial.folder.is_whole(*file) for file in kept.items()):
            yield spare


def _ranking(study: Study) -> list[Trial]:
    """The trials that only the best few of keep their weights, best first."""
    return [trial for trial in study.ranking if not (trial.may_go_on or trial.is_baseline)]


def _why(key: str, rank: int | None, of: int, keep: int | None) -> LetGo | None:
    """Why a trial's weights are not kept; None where they are."""
    if keep is None or key == BASELINE_KEY or (rank is not None and rank <= keep):
        return None
    return LetGo(rank, of, keep)


def _spare(folder: TrialFolder, kept: Container[str], why: LetGo | None) -> Spare:
    found = [path for path, _ in folder.checkpoints() if path.name not in kept]
    return Spare(folder, {path: file_size(path) for path in found + folder.leftovers()}, why)


def _read(folder: TrialFolder) -> Trial:
    record = folder.record()
    assert record is not None
    outcome = folder.outcome(record)
    assert outcome is not None
    epochs = Journal(folder.journal).epochs()
    return Trial.of(folder, record, epochs, outcome, outcome.state)
