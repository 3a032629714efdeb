"""MLflow ends up with exactly what the journals say, however often and by whom it is shipped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from samtune import tracking
from samtune.config.schema import StudyConfig
from samtune.config.trials import record_of
from samtune.errors import SamtuneError
from samtune.files import read_json
from samtune.study.folder import StudyFolder
from samtune.study.journal import Entry, Journal
from samtune.study.trial_folder import Outcome
from samtune.tracking.shipper import Shipper

Make = Callable[..., StudyConfig]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def folder(study_folder: StudyFolder, study_config: Make) -> StudyFolder:
    """Two trials: a finished and an unfinished one; no weights, hence no champion."""
    config = study_config()
    for key, epochs in {"t0001": 3, "t0002": 1}.items():
        trial = study_folder.trial(key)
        trial.hand_out(record_of(config, key, {"sam.rho": 0.1}), 1)
        for epoch in range(1, epochs + 1):
            _append(trial, epoch)
    study_folder.trial("t0001").end(Outcome("finished", 3))
    return study_folder


def _append(trial: object, epoch: int) -> None:
    metrics = {"val_accuracy": epoch / 10, "train_loss": 1.0}
    journal = Journal(trial.journal)  # type: ignore[attr-defined]
    journal.append(Entry(1, 1, epoch, metrics, 0.5, 1_700_000_000_000 + epoch, "s", "0"))


def _ship(folder: StudyFolder, uri: str) -> int:
    return Shipper(folder, uri).ship()


def _runs(uri: str) -> dict[str, mlflow.entities.Run]:
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    by_trial = {run.data.tags["samtune.trial"]: run for run in runs}
    assert len(by_trial) == len(runs)
    return by_trial


def test_one_parent_with_a_child_per_trial(folder: StudyFolder, uri: str) -> None:
    assert _ship(folder, uri) == 4
    runs = _runs(uri)
    assert set(runs) == {"study", "t0001", "t0002"}
    parent = runs["study"].info.run_id
    children = [runs["t0001"], runs["t0002"]]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent}
    assert [run.info.status for run in children] == ["FINISHED", "KILLED"]
    assert [r.data.tags["samtune.state"] for r in children] == ["finished", "interrupted"]
    names = {"val_accuracy", "train_loss", "epoch_duration_s"}
    assert set(runs["t0002"].data.metrics) == names
    assert set(runs["t0001"].data.metrics) == {*names, "best_val_accuracy"}
    assert runs["t0001"].data.params["sam.rho"] == "0.1"
    assert runs["t0001"].data.params["model.depth"] == "10"


def test_points_carry_the_journals_epochs_and_times(folder: StudyFolder, uri: str) -> None:
    _ship(folder, uri)
    run_id = _runs(uri)["t0001"].info.run_id
    history = mlflow.MlflowClient(uri).get_metric_history(run_id, "val_accuracy")
    points = sorted((p.step, p.value, p.timestamp) for p in history)
    assert points == [(e, e / 10, 1_700_000_000_000 + e) for e in (1, 2, 3)]


def test_the_best_value_carries_its_epoch_and_that_epochs_time(
    folder: StudyFolder, uri: str
) -> None:
    _append(folder.trial("t0002"), 2)
    worse = Entry(1, 1, 3, {"val_accuracy": 0.1, "train_loss": 1.0}, 0.5, 1_800_000_000_000, "", "")
    Journal(folder.trial("t0002").journal).append(worse)
    folder.trial("t0002").end(Outcome("finished", 3))
    _ship(folder, uri)
    runs, client = _runs(uri), mlflow.MlflowClient(uri)
    for key, epoch in {"t0001": 3, "t0002": 2}.items():
        (best,) = client.get_metric_history(runs[key].info.run_id, "best_val_accuracy")
        expected = (epoch, epoch / 10, 1_700_000_000_000 + epoch)
        assert (best.step, best.value, best.timestamp) == expected


@pytest.mark.parametrize("lost", [False, True])
def test_shipping_again_doubles_nothing(folder: StudyFolder, uri: str, lost: bool) -> None:
    _ship(folder, uri)
    if lost:  # the record of what was shipped may go: runs are found by their tags
        (folder.root / "tracking.json").unlink()
    _append(folder.trial("t0002"), 2)
    assert _ship(folder, uri) == (5 if lost else 1)
    runs = _runs(uri)
    client = mlflow.MlflowClient(uri)
    for key, epochs in {"t0001": 3, "t0002": 2}.items():
        history = client.get_metric_history(runs[key].info.run_id, "val_accuracy")
        assert sorted(p.step for p in history) == list(range(1, epochs + 1))


def test_an_interrupted_trial_is_opened_again_and_finished(folder: StudyFolder, uri: str) -> None:
    _ship(folder, uri)
    for epoch in (2, 3):
        _append(folder.trial("t0002"), epoch)
    folder.trial("t0002").end(Outcome("stopped", 3))
    _ship(folder, uri)
    run = _runs(uri)["t0002"]
    assert (run.info.status, run.data.tags["samtune.state"]) == ("FINISHED", "stopped")


def test_pending_counts_the_epochs_mlflow_has_not(folder: StudyFolder, uri: str) -> None:
    assert tracking.pending(folder.root) == 4
    _ship(folder, uri)
    assert tracking.pending(folder.root) == 0
    _append(folder.trial("t0002"), 2)
    assert tracking.pending(folder.root) == 1


def test_another_server_is_told_everything(folder: StudyFolder, uri: str, tmp_path: Path) -> None:
    _ship(folder, uri)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert _ship(folder, other) == 4
    assert set(_runs(other)) == {"study", "t0001", "t0002"}
    assert (read_json(folder.root / "tracking.json", dict) or {})["uri"] == other


@pytest.mark.parametrize("content", ["[]", '{"trials": 3}', '{"trials": {"t0001": []}}'])
def test_a_damaged_tracking_file_is_a_sentence(folder: StudyFolder, uri: str, content: str) -> None:
    (folder.root / "tracking.json").write_text(content)
    with pytest.raises(SamtuneError, match=r"tracking.json is damaged"):
        tracking.sync(folder, uri)


def test_a_deleted_experiment_is_explained(folder: StudyFolder, uri: str) -> None:
    _ship(folder, uri)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(SamtuneError, match="was deleted: restore it with `mlflow experiments"):
        tracking.sync(folder, uri)


def test_a_password_is_not_shown() -> None:
    shown = tracking.without_password("postgresql://me:secret@host:5432/db")
    assert shown == "postgresql://me:***@host:5432/db"
    assert tracking.without_password("sqlite:///mlflow.db") == "sqlite:///mlflow.db"
