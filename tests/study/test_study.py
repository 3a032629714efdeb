from __future__ import annotations

from collections.abc import Callable

import pytest

from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.errors import UnknownNameError
from samtune.study.folder import StudyFolder
from samtune.study.journal import Entry, Journal
from samtune.study.study import Study
from samtune.study.trial_folder import Outcome

Make = Callable[..., StudyConfig]

CURVES = {
    "t0000": ([0.5, 0.7], Outcome("finished", 2)),
    "t0001": ([0.9, 0.6], Outcome("finished", 2)),
    "t0002": ([0.8, 0.8], Outcome("finished", 2)),
    "t0003": ([0.95], Outcome("stopped", 1)),
    "t0004": ([0.2], None),
}


def _study(folder: StudyFolder, config: StudyConfig) -> Study:
    for number, (key, (values, outcome)) in enumerate(CURVES.items()):
        trial = folder.trial(key)
        trial.hand_out(record_of(config, key, {"sam.rho": number / 10}), 1)
        for epoch, value in enumerate(values, 1):
            metrics = {"val_accuracy": value, "val_loss": 1 - value}
            Journal(trial.journal).append(Entry(1, 1, epoch, metrics, 0.1, 0, "", ""))
        if outcome:
            trial.end(outcome)
    return Study(folder, config)


def test_a_trial_counts_by_its_best_epoch(study_folder: StudyFolder, study_config: Make) -> None:
    study = _study(study_folder, study_config())
    assert [(t.key, t.value) for t in study.ranking] == [
        *(("t0003", 0.95), ("t0001", 0.9), ("t0002", 0.8), ("t0000", 0.7), ("t0004", 0.2))
    ]


def test_the_ranking_is_made_once(study_folder: StudyFolder, study_config: Make) -> None:
    study = _study(study_folder, study_config())
    assert study.ranking is study.ranking
    assert study.best is study.ranking[0]


def test_by_the_last_epoch_only_finished_trials_compare(
    study_folder: StudyFolder, study_config: Make
) -> None:
    study = _study(study_folder, study_config(("study: {", "study: {select: last, ")))
    assert [(t.key, t.value) for t in study.ranking] == [
        *(("t0002", 0.8), ("t0000", 0.7), ("t0001", 0.6))
    ]


def test_a_loss_is_better_when_smaller(study_folder: StudyFolder, study_config: Make) -> None:
    study = _study(study_folder, study_config(("study: {", "study: {metric: val_loss, ")))
    assert study.best is not None
    assert study.best.key == "t0003"


def test_states_counts_and_baseline(study_folder: StudyFolder, study_config: Make) -> None:
    study = _study(study_folder, study_config())
    assert study.counts() == {"finished": 3, "stopped": 1, "interrupted": 1}
    assert study.state == "interrupted"
    assert study.baseline is not None
    assert study.baseline.values == {"sam.rho": 0.0}
    with pytest.raises(UnknownNameError, match="No trial named 't0009'"):
        study.trial("t0009")


def test_a_frame_has_a_row_per_epoch(study_folder: StudyFolder, study_config: Make) -> None:
    frame = _study(study_folder, study_config()).frame()
    assert len(frame) == 8
    assert set(frame.columns) == {"trial", "state", "sam.rho", "epoch", "val_accuracy", "val_loss"}
    assert frame[frame.trial == "t0001"].val_accuracy.tolist() == [0.9, 0.6]


def test_a_study_without_trials_has_no_best(study_folder: StudyFolder, study_config: Make) -> None:
    study = Study(study_folder, study_config())
    assert study.best is None
    assert study.trials == []
