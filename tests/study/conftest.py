"""A trial of a small model on digits, and what it gives if nobody disturbs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.data import DataSplits, load_dataset
from samtune.study.folder import StudyFolder
from samtune.study.trial_folder import TrialFolder
from tests.faults.saboteur import EPOCHS, Saboteur, curve, run

Make = Callable[..., StudyConfig]


@pytest.fixture(scope="session")
def digits() -> DataSplits:
    return load_dataset("digits")


@pytest.fixture
def trial(study_folder: StudyFolder, study_config: Make) -> TrialFolder:
    """A trial of 5 epochs, two passes each, handed out under session 1."""
    config = study_config(
        ("name: wide_resnet, depth: 10, width_factor: 1", "name: saboteur"),
        ("epochs: 3, batch_size: 400", f"epochs: {EPOCHS}, batch_size: 1200"),
        (", label_noise: 0.4", ""),
    )
    study_folder.save_config(config)
    folder = study_folder.trial("t0001")
    folder.hand_out(record_of(config, "t0001", {}), 1)
    Saboteur.at_pass = Saboteur.passes = 0
    return folder


@pytest.fixture
def undisturbed(trial: TrialFolder, digits: DataSplits, tmp_path: Path) -> list[dict[str, float]]:
    """The metrics of the same trial that nobody disturbed."""
    record = trial.record()
    assert record is not None
    other = TrialFolder(tmp_path / "undisturbed")
    other.hand_out(record, 1)
    return curve(run(other, digits))
