from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from samtune.config import StudyConfig
from samtune.errors import FencedError, SamtuneError, UnknownNameError
from samtune.files import read_json, write_json
from samtune.study.folder import Outcome, StudyFolder, study_names

Make = Callable[..., StudyConfig]


def test_a_study_is_found_by_name_and_reads_back(
    study_folder: StudyFolder, study_config: Make, tmp_path: Path
) -> None:
    assert study_names(tmp_path) == ["tiny"]
    assert StudyFolder.open(tmp_path, "tiny").config() == study_config()
    assert not study_folder.is_running


def test_a_name_is_taken_once(study_folder: StudyFolder, study_config: Make) -> None:
    before = (study_folder.root / "manifest.json").read_bytes()
    with pytest.raises(SamtuneError, match="study 'tiny' exists .* `samtune resume tiny`"):
        StudyFolder.create(study_folder.root.parent, study_config())
    assert (study_folder.root / "manifest.json").read_bytes() == before


def test_unknown_and_impossible_names_are_explained(
    study_folder: StudyFolder, tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match="No study named 'tinny'. Did you mean 'tiny'"):
        StudyFolder.open(tmp_path, "tinny")
    with pytest.raises(SamtuneError, match="is no study name"):
        StudyFolder.open(tmp_path, "../tiny")
    with pytest.raises(SamtuneError, match="there is no study in"):
        StudyFolder.open(tmp_path / "elsewhere", "tiny")


def test_sessions_count_up_and_one_driver_holds_the_study(study_folder: StudyFolder) -> None:
    with study_folder.session() as first:
        assert study_folder.is_running
        with (
            pytest.raises(SamtuneError, match=f"being run by process {os.getpid()} on"),
            study_folder.session(),
        ):
            pass
    assert not study_folder.is_running
    with study_folder.session() as second:
        pass
    assert (first, second) == (1, 2)


def test_a_killed_driver_leaves_the_study_free(study_folder: StudyFolder) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from samtune.study.folder import StudyFolder\n"
        "with StudyFolder(Path(sys.argv[1])).session():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(study_folder.root)], check=False)
    assert study_folder.driver is not None
    assert not study_folder.is_running
    with study_folder.session() as session:
        assert session == 2


def test_a_driver_on_another_machine_is_believed_until_forced(study_folder: StudyFolder) -> None:
    manifest = read_json(study_folder.root / "manifest.json")
    manifest["driver"] = {"host": "elsewhere", "pid": 1, "since": "2026", "started": ""}
    write_json(study_folder.root / "manifest.json", manifest)
    with (
        pytest.raises(SamtuneError, match="process 1 on elsewhere .* --force-unlock"),
        study_folder.session(),
    ):
        pass
    with study_folder.session(force_unlock=True) as session:
        assert session == 1


def test_a_trial_handed_out_again_fences_the_older_session(study_folder: StudyFolder) -> None:
    trial = study_folder.trial("t0001")
    trial.hand_out({"key": "t0001"}, 1)
    trial.check_session(1)
    trial.hand_out({"key": "t0001"}, 2)
    trial.check_session(2)
    with pytest.raises(FencedError, match="session 1 is over"):
        trial.check_session(1)


def test_an_outcome_is_written_once_and_read(study_folder: StudyFolder) -> None:
    trial = study_folder.trial("t0001")
    assert trial.outcome() is None
    trial.hand_out({"key": "t0001"}, 1)
    trial.end(Outcome("diverged", 3, "val_loss not finite in epoch 3"))
    assert trial.outcome() == Outcome("diverged", 3, "val_loss not finite in epoch 3")


def test_a_study_may_be_moved(study_folder: StudyFolder, tmp_path: Path) -> None:
    study_folder.root.rename(tmp_path / "moved")
    assert StudyFolder.open(tmp_path, "moved").config().trial.model.name == "wide_resnet"


def test_another_schema_is_refused(study_folder: StudyFolder, tmp_path: Path) -> None:
    manifest = read_json(study_folder.root / "manifest.json")
    write_json(study_folder.root / "manifest.json", {**manifest, "schema": 99})
    with pytest.raises(SamtuneError, match="written by another samtune .schema 99"):
        StudyFolder.open(tmp_path, "tiny")


def test_plugins_of_a_found_folder_are_not_imported_unasked(
    study_folder: StudyFolder, study_config: Make, tmp_path: Path
) -> None:
    marker = tmp_path / "imported"
    (tmp_path / "evil_plugin.py").write_text(f"open({str(marker)!r}, 'w')")
    config = study_config().model_copy(update={"plugins": ["evil_plugin"]})
    study_folder.save_config(config)
    study_folder.config()
    with pytest.raises(SamtuneError, match="add --plugin evil_plugin"):
        study_folder.checked_config([], tmp_path)
    assert not marker.exists()
