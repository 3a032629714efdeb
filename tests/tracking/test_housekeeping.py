"""What MLflow has of a study follows its name, and goes with it where that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from samtune import tracking
from samtune.config.schema import StudyConfig
from samtune.errors import SamtuneError
from samtune.study.folder import StudyFolder
from samtune.study.renaming import rename
from samtune.tracking.champion import rename_model
from samtune.tracking.shipper import Shipper
from tests.tracking.conftest import assert_all_there, runs_of, write_study

Make = Callable[..., StudyConfig]


@pytest.fixture
def finished(study_folder: StudyFolder, uri: str) -> StudyFolder:
    """A study of two trials that MLflow has."""
    config = study_folder.config()
    search = config.study.model_copy(update={"register_model": False})
    study_folder.save_config(config.model_copy(update={"study": search}))
    write_study(study_folder, {"t0001": 3, "t0002": 3})
    assert not Shipper(study_folder, uri).ship().failure
    return study_folder


def _other(tmp_path: Path, study_config: Make, name: str) -> StudyFolder:
    """Another study, in another storage."""
    config = study_config(("name: tiny", f"name: {name}"))
    return write_study(StudyFolder.create(tmp_path / "elsewhere", config), {"t0001": 3})


def test_a_renamed_studys_experiment_has_its_new_name_and_no_run_twice(
    finished: StudyFolder, uri: str
) -> None:
    before = {key: run.info.run_id for key, run in runs_of(uri).items()}
    folder = rename(finished, "other")
    sent, report = tracking.sync(folder)
    assert (sent, report.notes) == (0, [])
    assert_all_there(uri, folder)
    runs = runs_of(uri, "other")
    assert {key: run.info.run_id for key, run in runs.items()} == before
    assert runs["study"].info.run_name.startswith("other 20")
    assert "samtune show other" in runs["study"].data.tags["mlflow.note.content"]
    assert mlflow.MlflowClient(uri).get_experiment_by_name("tiny") is None


def test_an_experiment_that_another_study_has_a_part_in_keeps_its_name(
    finished: StudyFolder, uri: str, tmp_path: Path, study_config: Make
) -> None:
    other = _other(tmp_path, study_config, "tiny")
    assert not Shipper(other, uri).ship().failure
    folder = rename(finished, "other")
    _, report = tracking.sync(folder)
    (note,) = report.notes
    assert note == "MLflow: experiment 'tiny' has another study's runs, too, and keeps its name"
    assert_all_there(uri, folder)


def test_a_name_that_is_taken_in_mlflow_is_shared_as_ever(
    finished: StudyFolder, uri: str, tmp_path: Path, study_config: Make
) -> None:
    assert not Shipper(_other(tmp_path, study_config, "other"), uri).ship().failure
    folder = rename(finished, "other")
    _, report = tracking.sync(folder)
    assert any("there is an experiment 'other' already" in note for note in report.notes)


def test_deleted_records_are_this_studys_alone(
    finished: StudyFolder, uri: str, tmp_path: Path, study_config: Make
) -> None:
    other = _other(tmp_path, study_config, "tiny")
    assert not Shipper(other, uri).ship().failure
    client = mlflow.MlflowClient(uri)
    client.create_registered_model("tiny")
    for folder in (finished, other):
        tags = {"samtune.study_id": folder.manifest.study_id}
        client.create_model_version("tiny", str(tmp_path / "model"), tags=tags)
    assert tracking.delete_records(finished) == 3
    assert_all_there(uri, other)
    (version,) = client.search_model_versions("name = 'tiny'")
    assert version.tags["samtune.study_id"] == other.manifest.study_id
    left = client.get_experiment_by_name("tiny")
    assert left is not None
    views = [tag for tag in left.tags if tag.startswith("mlflow.sharedViewState.")]
    assert views == [f"mlflow.sharedViewState.{other.manifest.study_id}"]

    assert tracking.delete_records(other) == 2
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    assert experiment.lifecycle_stage == "deleted"
    assert client.search_registered_models() == []


def test_a_registered_model_follows_unless_the_name_is_taken(uri: str, tmp_path: Path) -> None:
    client = mlflow.MlflowClient(uri)
    for name in ("tiny", "taken"):
        client.create_registered_model(name)
        client.create_model_version(name, str(tmp_path / "model"))
    rename_model(client, "tiny", "taken")
    rename_model(client, "tiny", "tiny")
    assert {m.name for m in client.search_registered_models()} == {"tiny", "taken"}
    rename_model(client, "tiny", "other")
    assert {m.name for m in client.search_registered_models()} == {"other", "taken"}


def test_an_mlflow_that_is_away_is_a_sentence_and_nothing_is_made(
    finished: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking.reach(tracking.Store(tracking.tracking_uri()))
    missing = tmp_path / "none.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{missing}")
    tracking.reach(tracking.Store(tracking.tracking_uri()))
    assert not missing.exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:1")
    store = tracking.Store(tracking.tracking_uri())
    for ask in (lambda: tracking.reach(store), lambda: tracking.delete_records(finished)):
        with pytest.raises(SamtuneError, match="127.0.0.1:1") as caught:
            ask()
        assert "secret" not in str(caught.value)
