"""A study that ends makes its page, and MLflow gets it; nothing is held up by one that fails."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest

from samtune import tracking
from samtune.study.folder import StudyFolder
from samtune.study.trial_folder import Outcome
from samtune.tracking.page import Page
from tests.synthetic import Make
from tests.tracking.conftest import runs_of, write_study


@pytest.fixture
def ended(tmp_path: Path, study_config: Make) -> StudyFolder:
    """A study of one trial, which has finished."""
    config = study_config(
        ("trials: 4", "trials: 1, baseline: false, register_model: false"), (", report: false", "")
    )
    folder = write_study(StudyFolder.create(tmp_path, config), {"t0001": 1})
    folder.trial("t0001").end(Outcome("finished", 1))
    return folder


def _followed(folder: StudyFolder) -> tracking.Report:
    with tracking.following(folder.root):
        pass
    return tracking.wait_until_shipped(folder.root)


def test_a_study_that_ends_has_its_page_in_mlflow(ended: StudyFolder, uri: str) -> None:
    found = _followed(ended)
    assert not found.missing
    assert not found.notes
    page = mlflow.artifacts.load_text(f"{runs_of(uri)['study'].info.artifact_uri}/report.html")
    assert page == (ended.root / "report.html").read_text()
    assert "t0001" in page


def test_without_mlflow_the_page_is_made_all_the_same(
    ended: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert _followed(ended).missing
    assert "t0001" in (ended.root / "report.html").read_text()


def test_a_page_that_cannot_be_made_is_said_and_keeps_nothing_back(
    ended: StudyFolder, uri: str
) -> None:
    (ended.root / "report.html").mkdir()
    found = _followed(ended)
    assert not found.missing
    (note,) = found.notes
    assert note.startswith("MLflow: report.html: could not be made; `samtune report tiny --stor")
    assert "IsADirectoryError" in (ended.root / "tracking.log").read_text()
    assert runs_of(uri)["t0001"].info.status == "FINISHED"


def test_a_page_that_takes_too_long_is_ended(ended: StudyFolder) -> None:
    said: list[str] = []
    with Page(ended, said.append) as page:
        page.begin()
        assert not page.is_made(0.05)
        assert page.is_lost
    assert "timed out" in said[0]
    assert not (ended.root / "report.html").exists()


def test_a_study_with_trials_to_go_makes_none(ended: StudyFolder) -> None:
    (ended.trial("t0001").root / "outcome.json").unlink()
    with Page(ended, print) as page:
        page.begin()
        assert not page.is_made(60)
        assert not page.is_lost
