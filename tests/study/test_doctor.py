"""What `samtune doctor` finds in a study's files, and what of it is harm."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from samtune.data import DataSplits
from samtune.study.damage import Damage
from samtune.study.doctor import examine
from samtune.study.driver import Driver
from samtune.study.folder import StudyFolder
from samtune.study.history import encoded
from samtune.study.journal import Journal
from samtune.study.trial_folder import TrialFolder
from samtune.study.trial_run import run_trial
from tests.faults.saboteur import CPU, run

STATES = "trials"  # where the driver, who is not here, would let go of training states


@pytest.fixture
def study(study_folder: StudyFolder, trial: TrialFolder) -> StudyFolder:
    """A study whose one trial has trained two of its epochs, in the study's first session."""
    with study_folder.session():
        pass
    return study_folder


@pytest.fixture
def train(trial: TrialFolder, digits: DataSplits) -> Callable[[int], None]:
    def train(epochs: int) -> None:
        progress = run_trial(trial, 1, device=CPU, data=digits)
        for _ in range(epochs):
            next(progress)
        progress.close()

    return train


def _found(folder: StudyFolder) -> dict[str, Damage]:
    found = examine(folder.root.parent, folder.name)
    assert len({damage.where for damage in found}) == len(found)
    return {damage.where: damage for damage in found}


def test_a_session_that_the_manifest_does_not_know_is_harm(
    study_folder: StudyFolder, trial: TrialFolder, digits: DataSplits
) -> None:
    run(trial, digits)
    assert str(_found(study_folder)["trials/t0001/trial.json"]) == (
        "trials/t0001/trial.json is of session 1, but manifest.json knows 0 sessions; restore "
        "manifest.json from a backup"
    )
    with study_folder.session():
        pass
    assert set(_found(study_folder)) == {STATES}


def test_lines_of_workers_that_were_held_up_do_no_harm(
    study: StudyFolder, trial: TrialFolder, digits: DataSplits, train: Callable[[int], None]
) -> None:
    train(1)
    (first,) = Journal(trial.journal).lines()
    run(trial, digits)
    with open(trial.journal, "ab") as file:
        file.write(encoded(replace(first, epoch=2))[0])
    found = _found(study)
    assert set(found) == {"trials/t0001/epochs.jsonl", STATES}
    damage = found["trials/t0001/epochs.jsonl"]
    assert damage.is_harmless
    assert "held up (1)" in damage.found


def test_what_a_killed_driver_leaves_does_no_harm(
    study: StudyFolder, trial: TrialFolder, digits: DataSplits
) -> None:
    run(trial, digits)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    driver = replace(Driver.this_process(), pid=gone.pid)
    study.write_manifest(replace(study.manifest, driver=driver))
    (study.root / ".tmp-0").write_text("")
    (study.root / ".tune").mkdir()
    found = _found(study)
    assert sorted(found) == [".tmp-0", ".tune", "manifest.json", STATES]
    assert all(damage.is_harmless for damage in found.values())
    assert f"process {gone.pid}" in found["manifest.json"].found


def test_what_an_unfinished_trial_has_lost_a_resume_makes_up_for(
    study: StudyFolder, trial: TrialFolder, digits: DataSplits, train: Callable[[int], None]
) -> None:
    train(2)
    lost = Journal(trial.journal).epochs()[-1]
    trial.file(lost.state).unlink()
    (trial.root / "state-00009-a1.pt").write_text("")
    found = _found(study)
    assert set(found) == {f"trials/t0001/{lost.state}", "trials/t0001/state-00009-a1.pt"}
    assert found[f"trials/t0001/{lost.state}"].remedy == (
        "restore it from a backup, or `samtune resume` goes on from the last whole training state"
    )
    assert found["trials/t0001/state-00009-a1.pt"].remedy == (
        "nothing reads it, and `samtune resume` removes it"
    )
    run(trial, digits)
    (states,) = _found(study).values()
    assert (states.where, states.is_harmless) == (STATES, True)
    assert "`samtune gc tiny" in states.remedy


def test_of_a_trial_at_work_the_journal_and_the_best_weights_are_looked_at(
    study_folder: StudyFolder, trial: TrialFolder, train: Callable[[int], None]
) -> None:
    with study_folder.session():
        train(2)
        for path in trial.root.glob("state-*"):
            os.truncate(path, 0)
        (trial.root / ".tmp-0").write_text("")
        (study_folder.root / ".tune").mkdir()
        assert _found(study_folder) == {}
        (best,) = trial.root.glob("best-*")
        best.unlink()
        (damage,) = _found(study_folder).values()
        assert damage.where == f"trials/t0001/{best.name}"
        assert damage.found.startswith("(the best weights, epoch ")
        assert not damage.is_harmless
