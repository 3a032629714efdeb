"""A study's tuned baseline: what is left of it, and running that.

It is a study of its own (`samtune.config.baseline`), begun once the search is done: journal,
resume, lost workers and MLflow are those of every study. Killed in either half, the search's name
is all that is needed to go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from samtune.config.baseline import baseline_name, baseline_study
from samtune.config.schema import StudyConfig
from samtune.errors import SamtuneError
from samtune.study.folder import StudyFolder
from samtune.study.study import Study
from samtune.tuning.run import Session
from samtune.working_copy import current


@dataclass(frozen=True)
class Tuning:
    """The baseline's half of a study.

    Attributes:
        config: what it is to be now: extended with the search, where that was.
        before: what there is of it; None where it was not begun.
    """

    config: StudyConfig
    before: Study | None

    def to_run(self, *, retry_failed: bool = False) -> int:
        """How many trials are left."""
        if self.before is None:
            return self.config.wanted_trials
        return self.before.left + (len(self.before.failed) if retry_failed else 0)


def tuning_of(search: Study) -> Tuning | None:
    """What there is and what is left of a search's tuned baseline; None where none is asked for.

    Args:
        search: once it is done, the baseline gets as many trials as it has begun.

    Raises:
        SamtuneError: another study has the baseline's name, or what has changed in the search would
            give the baseline's trials another meaning.
    """
    if search.config.study.baseline != "tuned":
        return None
    study_id = search.folder.study_id or search.folder.manifest.study_id
    trials = max(1, sum(not t.is_baseline for t in search.trials))
    config = baseline_study(search.config, study_id, trials)
    storage = search.folder.root.parent
    if not current(storage / config.name / "manifest.json").exists():
        return Tuning(config, None)
    folder = StudyFolder.open(storage, config.name)
    if folder.config().baseline_of != config.baseline_of:
        raise SamtuneError(
            f"{folder.root} holds another study, and the tuned baseline of {search.name!r} is to "
            "be called so: move that folder away"
        )
    folder.check_changes(config)
    return Tuning(config, Study(folder, config))


def check_free(storage: Path, config: StudyConfig) -> None:
    """Raises `SamtuneError` if a new study's tuned baseline cannot have its name."""
    if config.study.baseline == "tuned":
        StudyFolder.check_free(storage, baseline_name(config.name))


def tune_baseline(
    tuning: Tuning, storage: Path, session: Session, plugins: Sequence[str] = ()
) -> Study:
    """Runs what is left of a tuned baseline and returns it.

    Args:
        plugins: the modules that the user has named.
    """
    if tuning.before is None:
        return session.begin(tuning.config, storage)
    tuning.before.folder.check_plugins(plugins)
    return session.run(tuning.before.folder, tuning.config)
