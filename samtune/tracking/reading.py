"""A study read over and over at little cost."""

from __future__ import annotations

import os
from collections.abc import Container

from samtune.config.schema import StudyConfig
from samtune.study.fetching import STUDY_FILES
from samtune.study.folder import StudyFolder
from samtune.study.index import stamp_of
from samtune.study.study import Study, Trial
from samtune.study.trial_folder import TrialFolder

OWN_FILES = (*STUDY_FILES, "settings.json")
ENDED_AT_ONCE = 200

Looked = tuple[int, bool, tuple[int, ...]]  # session, is running, and the files' stamp
Stamp = frozenset[tuple[object, ...]]


class StudyReader:
    """Reads a study, and of what it has read before only what has changed since.

    Of the trials that have ended, which hardly ever change, each look takes in a few in turn. All
    of them are looked at in a new session, and when somebody asks for the whole.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self._known: dict[str, tuple[Looked, Trial]] = {}
        self._config: tuple[object, StudyConfig] | None = None
        self._ended: dict[str, None] = {}
        self._session = 0
        self._turn = 0

    def stamp(self) -> Stamp:
        """Has something that an earlier one has not if the study may have changed since.

        It costs a look at the study's own files, at those of each trial that has not ended, and at
        those of `ENDED_AT_ONCE` others.
        """
        self.folder.fetch()
        self._look_at_some_ended()
        trials = self.folder.root / "trials"
        names = os.listdir(trials) if trials.is_dir() else []
        unended = [name for name in names if name not in self._ended]
        own = self.folder.is_running, stamp_of(str(self.folder.root), OWN_FILES)
        return frozenset([own, *((name, stamp_of(f"{trials}/{name}")) for name in unended)])

    def _look_at_some_ended(self) -> None:
        start = self._turn if self._turn < len(self._ended) else 0
        self._turn = start + ENDED_AT_ONCE
        for key in list(self._ended)[start : self._turn]:
            if self._known[key][0][2] != stamp_of(str(self.folder.root / "trials" / key)):
                del self._ended[key]

    def read(self, *, whole: bool = False) -> Study:
        """The study as it is now.

        Args:
            whole: look at the trials that have ended, too.
        """
        session = self.folder.manifest.session
        if whole or session != self._session:
            self._ended.clear()
        self._session = session
        study = _Reading(self.folder, self._read_config(), self._known, self._ended)
        self._ended = dict.fromkeys(trial.key for trial in study.trials if trial.outcome)
        return study

    def _read_config(self) -> StudyConfig:
        stamp = stamp_of(str(self.folder.root), OWN_FILES)
        if self._config is None or self._config[0] != stamp:
            self._config = stamp, self.folder.config()
        return self._config[1]


class _Reading(Study):
    def __init__(
        self,
        folder: StudyFolder,
        config: StudyConfig,
        known: dict[str, tuple[Looked, Trial]],
        ended: Container[str],
    ) -> None:
        self._known = known
        self._ended = ended
        super().__init__(folder, config, whole=bool(known))  # the index has nothing new to say

    def _folders(self) -> list[TrialFolder]:
        return self.folder.trials(self._ended)

    def _trial(self, folder: TrialFolder) -> Trial | None:
        if folder.key in self._ended:
            return self._known[folder.key][1]
        # Before reading: what is written in between is read in another round.
        stamp = (self.session, self.is_running, stamp_of(str(folder.root)))
        before, trial = self._known.get(folder.key, (None, None))
        if trial is None or before != stamp:
            trial = super()._trial(folder)
            if trial is not None:
                self._known[folder.key] = (stamp, trial)
        return trial
