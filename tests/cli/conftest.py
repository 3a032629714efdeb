"""A study that has begun, for the verbs that look at one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.study import StudyFolder
from samtune.study.journal import Entry, Journal
from samtune.study.trial_folder import Outcome

Make = Callable[..., StudyConfig]


def append_epoch(folder: StudyFolder, key: str, epoch: int) -> None:
    """One more epoch of a trial, a tenth better than the last."""
    metrics = {"val_accuracy": epoch / 10, "train_loss": 1.0}
    Journal(folder.trial(key).journal).append(Entry(1, 1, epoch, metrics, 0.25, 1, "s", "0"))


@pytest.fixture
def begun(tmp_path: Path, study_config: Make) -> StudyFolder:
    """A study of 4 trials and a baseline, of which two have ended."""
    folder = StudyFolder.create(tmp_path / "samtune_studies", study_config())
    values = {"sam.rho": 0.25, "optimizer.lr": 0.1}
    for key in ("t0000", "t0001"):
        given = {"sam.rho": 0.0} if key == "t0000" else values
        folder.trial(key).hand_out(record_of(study_config(), key, given), 1)
        append_epoch(folder, key, 1)
    folder.trial("t0000").end(Outcome("finished", 1))
    folder.trial("t0001").end(Outcome("stopped", 1))
    return folder
