"""A study keeps all that it is under another name, wherever a kill comes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from samtune.config.baseline import baseline_study
from samtune.config.checked_trial import record_of
from samtune.config.confirm import ConfirmConfig, Finalist, TunedBaseline
from samtune.config.schema import StudyConfig
from samtune.errors import SamtuneError
from samtune.study.folder import StudyFolder, study_names
from samtune.study.manifest import Reading
from samtune.study.renaming import rename
from samtune.study.study import open_study
from samtune.study.trial_folder import Outcome
from tests.faults.disk import Disk, kill
from tests.faults.saboteur import Killed

Make = Callable[..., StudyConfig]
NAMES = ["tiny", "tiny-baseline", "tiny-confirm"]


@pytest.fixture
def storage(study_folder: StudyFolder, study_config: Make, tmp_path: Path) -> Path:
    """A study with a trial, its tuned baseline, and its confirmation, which has read the test."""
    config = study_config(("study: {", "study: {baseline: tuned, "))
    study_folder.save_config(config, 0)
    trial = study_folder.trial("t0001")
    trial.hand_out(record_of(config, "t0001", {"sam.rho": 0.1, "optimizer.lr": 0.1}), 0)
    trial.end(Outcome("stopped", 0))
    assert study_folder.study_id is not None
    StudyFolder.create(tmp_path, baseline_study(config, study_folder.study_id, 1))
    finalist = Finalist(trial="t0001", values={}, equal_epochs={}, equal_compute={})
    confirm = ConfirmConfig(
        study="tiny",
        study_id=study_folder.study_id,
        top=1,
        seeds=[1],
        finalists=[finalist],
        tuned=TunedBaseline(study="tiny-baseline", trial="t0001", trials=1, settings={}),
    )
    update = {
        "name": "tiny-confirm",
        "confirm": confirm,
        "search_space": {},
        "study": config.study.model_copy(update={"baseline": False}),
    }
    confirmation = StudyFolder.create(tmp_path, config.model_copy(update=update))
    (confirmation.root / "confirm.json").write_text(json.dumps({"study": "tiny", "top": 1}))
    assert confirmation.study_id is not None
    reading = Reading("me", "now", "tiny-confirm", confirmation.study_id, True)
    study_folder.note_test_reading(reading)
    return tmp_path


def check_renamed(storage: Path, study_id: str | None) -> None:
    study = open_study("other", storage)
    assert study_names(storage) == ["other", "other-baseline", "other-confirm"]
    assert study.folder.study_id == study_id
    assert study.config.name == "other"
    assert study.trial("t0001").state == "stopped"
    confirmation = StudyFolder.open(storage, "other-confirm")
    config = confirmation.config()
    assert config.name == "other-confirm"
    assert config.confirm
    assert (config.confirm.study, config.confirm.study_id) == ("other", study_id)
    assert config.confirm.tuned
    assert config.confirm.tuned.study == "other-baseline"
    assert study.tuned_baseline
    assert study.tuned_baseline.config.belongs_to == "other"
    assert json.loads((confirmation.root / "confirm.json").read_text())["study"] == "other"
    (reading,) = study.folder.manifest.test_readings
    assert reading.confirmation == "other-confirm"
    assert confirmation.command("resume").startswith("samtune confirm other ")
    for folder in (study.folder, confirmation, study.tuned_baseline.folder):
        assert folder.manifest.renaming is None
        with folder.session():
            accepted = folder.checked_config([], storage)
        assert accepted.name == folder.name


def test_everything_that_holds_the_name_follows(storage: Path) -> None:
    folder = StudyFolder.open(storage, "tiny")
    rename(folder, "other")
    check_renamed(storage, folder.study_id)


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_anywhere_it_has_one_name_or_the_other_and_the_next_command_mends_it(
    storage: Path, tmp_path_factory: pytest.TempPathFactory, step: int
) -> None:
    study_id = StudyFolder.open(storage, "tiny").study_id
    copies = tmp_path_factory.mktemp("copies")
    done = before = 0
    for at in range(1, 200, step):
        copy = copies / str(at)
        shutil.copytree(storage, copy)
        with Disk(at, kill).watched() as disk, contextlib.suppress(Killed):
            rename(StudyFolder.open(copy, "tiny"), "other")
        names = study_names(copy)
        if "tiny" in names:
            before += 1
            assert names == NAMES, at
            assert open_study("tiny", copy).config.name == "tiny"
            rename(StudyFolder.open(copy, "tiny"), "other")
        check_renamed(copy, study_id)
        shutil.rmtree(copy)
        if not disk.is_dead:
            done = at
            break
    assert before
    assert step * before < done < 200 - step


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("tiny", "exists: take another name"),
        ("tiny-confirm", "exists: take another name"),
        ("../other", "is no study name"),
        ("x" * 60, "is no study name"),  # its confirmation's would be too long
    ],
)
def test_a_name_that_cannot_be_is_refused_before_anything_changes(
    storage: Path, new: str, said: str
) -> None:
    with pytest.raises(SamtuneError, match=said):
        rename(StudyFolder.open(storage, "tiny"), new)
    assert study_names(storage) == NAMES
    assert StudyFolder.open(storage, "tiny").manifest.renaming is None


@pytest.mark.parametrize("running", NAMES)
def test_neither_the_study_nor_one_of_its_own_may_run(storage: Path, running: str) -> None:
    with (
        StudyFolder.open(storage, running).session(),
        pytest.raises(SamtuneError, match=f"study '{running}' is being run"),
    ):
        rename(StudyFolder.open(storage, "tiny"), "other")
    assert study_names(storage) == NAMES


def test_what_is_called_after_a_study_keeps_to_it(storage: Path) -> None:
    for name in ("tiny-confirm", "tiny-baseline"):
        with pytest.raises(SamtuneError, match="rename 'tiny'"):
            rename(StudyFolder.open(storage, name), "other")


def test_an_edited_study_file_is_no_ones_to_accept(storage: Path) -> None:
    path = storage / "tiny" / "study.yaml"
    path.write_text(path.read_text().replace("trials: 4", "trials: 5"))
    with pytest.raises(SamtuneError, match="was edited since the last session"):
        rename(StudyFolder.open(storage, "tiny"), "other")


def test_a_copy_of_a_study_is_another_ones_name_and_stays(storage: Path) -> None:
    shutil.copytree(storage / "tiny", storage / "copy")
    assert StudyFolder.open(storage, "copy").config().name == "tiny"
    assert study_names(storage) == ["copy", *NAMES]


def test_archived_it_cannot_run_until_it_is_brought_back(storage: Path) -> None:
    folder = StudyFolder.open(storage, "tiny")
    folder.set_archived(True)
    assert open_study("tiny", storage).is_archived
    said = "is archived: bring it back with `samtune unarchive tiny --storage"
    with pytest.raises(SamtuneError, match=said), folder.session():
        pass
    folder.set_archived(False)
    with folder.session(), pytest.raises(SamtuneError, match="is being run by"):
        StudyFolder.open(storage, "tiny").set_archived(True)
    assert not open_study("tiny", storage).is_archived
    assert os.listdir(folder.root)
