"""A study read over and over at little cost."""

from __future__ import annotations

from pathlib import Path

from samtune.config.schema import StudyConfig
from samtune.study.folder import StudyFolder
from samtune.study.study import Study, Trial
from samtune.study.trial_folder import TrialFolder

TRIAL_FILES = ("trial.json", "epochs.jsonl", "outcome.json")
STUDY_FILES = ("manifest.json", "study.yaml")

Stamp = tuple[object, ...]


class StudyReader:
    """Reads a study, and of what it has read before only what has changed since."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self._known: dict[str, tuple[Stamp, Trial]] = {}

    def stamp(self) -> Stamp:
        """Differs from an earlier one if the study may have changed; costs a look at each file."""
        trials = sorted((self.folder.root / "trials").glob("*"))
        return (
            self.folder.is_running,
            _stamp(self.folder.root, STUDY_FILES),
            *(_stamp(trial, TRIAL_FILES) for trial in trials),
        )

    def read(self) -> Study:
        """The study as it is now."""
        return _Reading(self.folder, self.folder.config(), self._known)


class _Reading(Study):
    def __init__(
        self, folder: StudyFolder, config: StudyConfig, known: dict[str, tuple[Stamp, Trial]]
    ) -> None:
        self._known = known
        super().__init__(folder, config)

    def _trial(self, folder: TrialFolder) -> Trial | None:
        # Before reading: what is written in between is read in another round.
        stamp = (self.session, self.is_running, _stamp(folder.root, TRIAL_FILES))
        before, trial = self._known.get(folder.key, (None, None))
        if trial is None or before != stamp:
            trial = super()._trial(folder)
            if trial is not None:
                self._known[folder.key] = (stamp, trial)
        return trial


def _stamp(folder: Path, names: tuple[str, ...]) -> Stamp:
    found: list[object] = [folder.name]
    for name in names:
        try:
            stat = (folder / name).stat()
        except OSError:
            found.append(None)
        else:
            found += [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    return tuple(found)
