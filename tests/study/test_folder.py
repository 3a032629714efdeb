from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.errors import FencedError, SamtuneError, UnknownNameError
from samtune.files import read_json, write_atomically, write_json
from samtune.study.folder import StudyFolder, study_names
from samtune.study.study import Study
from samtune.study.trial_folder import EndState, Outcome

Make = Callable[..., StudyConfig]


def test_a_study_is_found_by_name_and_reads_back(
    study_folder: StudyFolder, study_config: Make, tmp_path: Path
) -> None:
    assert study_names(tmp_path) == ["tiny"]
    assert StudyFolder.open(tmp_path, "tiny").config() == study_config()
    assert not study_folder.is_running


def test_a_new_study_is_forced_to_the_disk_by_name(
    tmp_path: Path, study_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", recorded)
    folder = StudyFolder.create(tmp_path, study_config())
    assert synced[-2:] == [str(folder.root), str(tmp_path)]


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
    manifest = read_json(study_folder.root / "manifest.json", dict)
    assert manifest is not None
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
    record = record_of(study_folder.config(), "t0001", {})
    trial.hand_out(record, 1)
    trial.check_session(1)
    trial.hand_out(record, 2)
    trial.check_session(2)
    with pytest.raises(FencedError, match="session 1 is over"):
        trial.check_session(1)


@pytest.mark.parametrize("away", ["trials/t0001/trial.json", "manifest.json"])
def test_a_trial_that_cannot_be_found_is_the_storages_fault_for_who_writes(
    study_folder: StudyFolder, away: str
) -> None:
    trial = StudyFolder.open(study_folder.root.parent, "tiny").trial("t0001")
    trial.hand_out(record_of(study_folder.config(), "t0001", {}), 1)
    (study_folder.root / away).unlink()
    with pytest.raises(OSError, match="is the storage shared with this machine"):
        trial.check_session(1)


@pytest.mark.parametrize(
    ("state", "epochs"),
    [("finished", 3), ("stopped", 3), ("diverged", 2), ("out_of_memory", 2), ("failed", 2)],
)
def test_what_ended_in_an_epoch_has_finished_it_or_the_one_before(
    state: EndState, epochs: int
) -> None:
    assert Outcome(state, 3).epochs == epochs


def test_an_outcome_is_written_once_and_read(study_folder: StudyFolder) -> None:
    trial = study_folder.trial("t0001")
    assert trial.outcome() is None
    trial.hand_out(record_of(study_folder.config(), "t0001", {}), 1)
    trial.end(Outcome("diverged", 3, "val_loss not finite in epoch 3"))
    assert trial.outcome() == Outcome("diverged", 3, "val_loss not finite in epoch 3")


def test_a_study_may_be_moved(study_folder: StudyFolder, tmp_path: Path) -> None:
    study_folder.root.rename(tmp_path / "moved")
    assert StudyFolder.open(tmp_path, "moved").config().trial.model.name == "wide_resnet"


def test_another_schema_is_refused(study_folder: StudyFolder, tmp_path: Path) -> None:
    write_json(study_folder.root / "manifest.json", {"schema": 99, "all": "else is different"})
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


def test_trials_that_are_gone_are_not_begun_anew(
    study_folder: StudyFolder, study_config: Make, tmp_path: Path
) -> None:
    study_folder.trial("t0001").hand_out(record_of(study_config(), "t0001", {}), 1)
    (study_folder.root / "manifest.json").unlink()
    with pytest.raises(SamtuneError, match="holds trials, but its manifest.json is gone"):
        StudyFolder.create(tmp_path, study_config())
    with pytest.raises(SamtuneError, match="tiny has no manifest.json; restore"):
        StudyFolder.open(tmp_path, "tiny")
    shutil.rmtree(study_folder.root / "trials")
    with pytest.raises(SamtuneError, match="trials is gone, and with it every trial of study"):
        study_folder.trials()


@pytest.mark.parametrize("name", ["t1", "t0001x", "t0001.bak", "tmp"])
def test_other_folders_beside_the_trials_are_no_trials(
    study_folder: StudyFolder, name: str
) -> None:
    (study_folder.root / "trials" / name).mkdir()
    (study_folder.root / "trials" / name / "trial.json").write_text("[]")
    assert study_folder.trials() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must be a mapping, got"),
        ("- 1", "must be a mapping, got"),
        ("name: [1", "study.yaml has 1 problem"),
        ("name: x", "trial: is required"),
        (None, "study.yaml cannot be read: No such file"),
    ],
)
def test_a_damaged_copy_of_the_study_file_is_a_sentence(
    study_folder: StudyFolder, tmp_path: Path, content: str | None, message: str
) -> None:
    path = study_folder.root / "study.yaml"
    path.unlink() if content is None else path.write_text(content)
    for read in (study_folder.config, lambda: study_folder.checked_config([], tmp_path)):
        with pytest.raises(SamtuneError, match=message):
            read()


def test_a_driver_knows_its_study_by_id_and_leaves_another_in_its_place_alone(
    study_folder: StudyFolder, study_config: Make, tmp_path: Path
) -> None:
    record = record_of(study_config(), "t0001", {})
    with study_folder.session() as session:
        worker = study_folder.trial("t0001")
        worker.hand_out(record, session)
        shutil.rmtree(study_folder.root)
        with pytest.raises(OSError, match="is not there"):
            worker.check_session(session)
        other = StudyFolder.create(tmp_path, study_config())
        assert other.study_id != study_folder.study_id
        other.trial("t0001").hand_out(record, session)
        with other.session() as theirs:
            assert theirs == session
            for check in (study_folder.check_session, worker.check_session):
                with pytest.raises(FencedError, match="another study of the same name"):
                    check(session)
            with pytest.raises(FencedError):
                worker.end(Outcome("finished", 1), session)
            other.trial("t0001").check_session(theirs)
            held = other.manifest
    # The first driver's farewell has not reached the second's manifest.
    assert held.study_id == other.manifest.study_id == other.study_id
    with pytest.raises(FencedError), study_folder.session():
        pass


def test_a_start_that_fails_removes_no_study_but_its_own(
    study_folder: StudyFolder, study_config: Make, tmp_path: Path
) -> None:
    shutil.rmtree(study_folder.root)
    study_folder.remove_if_untouched()  # there is nothing, and nothing to complain of
    other = StudyFolder.create(tmp_path, study_config())
    study_folder.remove_if_untouched()
    assert other.root.is_dir()
    other.remove_if_untouched()
    assert not other.root.exists()


def test_the_farewell_of_a_removed_study_leaves_its_successor_running(
    study_folder: StudyFolder, study_config: Make, tmp_path: Path
) -> None:
    with study_folder.session():
        shutil.rmtree(study_folder.root)
        other = StudyFolder.create(tmp_path, study_config())
        successor = other.session()
        successor.__enter__()
    assert other.is_running
    successor.__exit__(None, None, None)
    assert not other.is_running


def test_no_other_trial_takes_the_place_of_a_damaged_one(
    study_folder: StudyFolder, study_config: Make
) -> None:
    assert study_folder.next_number() == 1
    for key in ("t0000", "t0001", "t0012"):
        trial = study_folder.trial(key)
        trial.hand_out(record_of(study_config(), key, {}), 1)
        write_atomically(trial.journal, b"")
    (study_folder.trial("t0012").root / "trial.json").unlink()
    write_atomically(study_folder.trial("t0000").root / "trial.json", b"")
    study = Study(study_folder, study_config())
    assert [t.key for t in study.trials] == ["t0001"]
    assert [str(damage) for damage in study.damage] == [
        "trials/t0000/trial.json is damaged (Invalid JSON: EOF while parsing a value at line 1 "
        "column 0); `samtune resume` writes it anew",
        "trials/t0012/trial.json is gone; the trial is set aside until it is restored from a "
        "backup",
    ]
    assert study_folder.next_number() == 13
    assert study.left == 5  # the baseline, t0001, and three more


def test_a_study_of_an_older_samtune_is_refused(study_folder: StudyFolder, tmp_path: Path) -> None:
    manifest = read_json(study_folder.root / "manifest.json", dict)
    assert manifest is not None
    write_json(study_folder.root / "manifest.json", {**manifest, "schema": 1})
    with pytest.raises(SamtuneError, match="written by another samtune .schema 1, this one"):
        StudyFolder.open(tmp_path, "tiny")
