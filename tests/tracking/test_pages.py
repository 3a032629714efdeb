"""The links that `samtune ui NAME` prints lead to the study's own runs."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import mlflow
import pytest

from samtune import tracking
from samtune.errors import SamtuneError
from samtune.study import Study, StudyFolder
from samtune.tracking.pages import pages_of
from samtune.tracking.store import store_of
from tests.commands import samtune_here
from tests.tracking.conftest import runs_of


def _query(page: str) -> tuple[str, dict[str, str]]:
    route = urlsplit(urlsplit(page).fragment)
    return route.path, {key: value for key, (value,) in parse_qs(route.query).items()}


def test_the_pages_show_the_studys_runs_and_its_best_beside_each_other(
    folder: StudyFolder, uri: str
) -> None:
    study = Study(folder, folder.config())
    with pytest.raises(SamtuneError, match="holds nothing of study 'tiny' yet: send it with `samt"):
        pages_of(study, store_of(folder.root))
    tracking.sync(folder)
    pages = pages_of(study, store_of(folder.root))
    runs = runs_of(uri)
    experiment = runs["study"].info.experiment_id

    path, view = _query(pages.runs)
    assert path == f"/experiments/{experiment}/runs"
    found = mlflow.MlflowClient(uri).search_runs([experiment], view["searchFilter"])
    assert {run.info.run_id for run in found} == {run.info.run_id for run in runs.values()}
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`score`", "false")

    path, compared = _query(pages.compare)
    assert path == "/compare-runs"
    best = [runs[key].info.run_id for key in ("t0001", "t0002")]
    assert json.loads(compared["runs"]) == best
    assert json.loads(compared["experiments"]) == [experiment]


def test_ui_of_a_study_on_a_server_prints_its_pages(
    remote: StudyFolder, direct: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", direct)
    tracking.sync(remote)
    told = samtune_here("ui", remote.name, "--storage", str(remote.root.parent), cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert f"trials     {direct}/#/experiments/" in told.stdout
    assert f"the best   {direct}/#/compare-runs?" in told.stdout
