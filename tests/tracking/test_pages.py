"""The links that `samtune ui NAME` prints lead to the study's own runs, seen as they should be."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import mlflow
import pytest

from samtune import tracking
from samtune.config.schema import StudyConfig
from samtune.errors import SamtuneError
from samtune.study import Study, StudyFolder
from samtune.tracking.pages import pages_of
from samtune.tracking.shipper import Shipper
from samtune.tracking.store import store_of
from samtune.tracking.view import state_of
from tests.commands import samtune_here
from tests.tracking.conftest import Proxy, append, assert_all_there, runs_of, write_study

Make = Callable[..., StudyConfig]


def _query(page: str) -> tuple[str, dict[str, str]]:
    route = urlsplit(urlsplit(page).fragment)
    return route.path, {key: value for key, (value,) in parse_qs(route.query).items()}


def _views(uri: str) -> dict[str, dict[str, Any]]:
    """The shared views of the experiment as MLflow's page reads them, by their key."""
    experiment = mlflow.MlflowClient(uri).get_experiment_by_name("tiny")
    assert experiment is not None
    found = {}
    for key, value in experiment.tags.items():
        if key.startswith("mlflow.sharedViewState."):
            envelope = json.loads(value)
            method, _, deflated = envelope["state"].partition(";")
            assert method == "deflate"
            assert isinstance(envelope["createdAt"], int)
            state = json.loads(zlib.decompress(base64.b64decode(deflated)))
            found[key.rpartition(".")[2]] = {"name": envelope["name"], **state}
    return found


def test_the_pages_show_the_studys_view_and_its_best_beside_each_other(
    folder: StudyFolder, uri: str
) -> None:
    study = Study(folder, folder.config())
    with pytest.raises(SamtuneError, match="holds nothing of study 'tiny' yet: send it with `samt"):
        pages_of(study, store_of(folder.root))
    tracking.sync(folder)
    pages = pages_of(study, store_of(folder.root))
    runs = runs_of(uri)
    experiment = runs["study"].info.experiment_id

    for page, mode in ((pages.charts, "CHART"), (pages.trials, None)):
        path, asked = _query(page)
        assert path == f"/experiments/{experiment}/runs"
        assert asked["workflowType"] == "machine_learning"
        assert asked["viewStateShareKey"] in _views(uri)
        assert asked.get("compareRunsMode") == mode

    path, compared = _query(pages.compare)
    assert path == "/compare-runs"
    assert pages.compare.startswith("/#/compare-runs?runs=")
    best = [runs[key].info.run_id for key in ("t0001", "t0002")]
    assert json.loads(compared["runs"]) == best
    assert json.loads(compared["experiments"]) == [experiment]
    assert _query(pages.study)[0] == f"/experiments/{experiment}/runs/{runs['study'].info.run_id}"


def test_the_view_shows_the_studys_trials_by_score_and_what_they_searched(
    folder: StudyFolder, uri: str, tmp_path: Path, study_config: Make
) -> None:
    tracking.sync(StudyFolder(folder.root))  # as the process beside a driver knows it
    other = write_study(StudyFolder.create(tmp_path / "again", study_config()), {"t0001": 1})
    tracking.sync(other)
    views = _views(uri)
    assert set(views) == {folder.study_id, other.study_id}  # of two studies of one name
    view = views[folder.study_id]
    (name,) = (
        run.info.run_name
        for run in _search(uri, folder)
        if run.data.tags["samtune.trial"] == "study"
    )
    assert view["name"] == name

    shown = mlflow.MlflowClient(uri).search_runs(
        [_experiment(uri)], view["searchFilter"], order_by=[f"{view['orderByKey']} DESC"]
    )
    assert [run.data.tags["samtune.trial"] for run in shown] == ["t0001", "t0002"]
    assert {run.data.tags["samtune.study_id"] for run in shown} == {folder.study_id}
    assert not view["orderByAsc"]  # val_accuracy: the more the better

    searched = list(folder.config().search_space)
    assert view["selectedColumns"][:2] == ["metrics.`score`", "metrics.`gain_over_baseline`"]
    assert {f"params.`{path}`" for path in searched} < set(view["selectedColumns"])
    (run,) = [run for run in shown if run.data.tags["samtune.trial"] == "t0001"]
    for column in view["selectedColumns"]:
        kind, _, key = column.partition(".")
        values = {"metrics": run.data.metrics, "params": run.data.params, "tags": run.data.tags}
        named = key.strip("`")
        assert kind == "attributes" or named == "gain_over_baseline" or named in values[kind]

    curves, rho, *_, parallel = view["compareRunCharts"]
    assert (curves["type"], curves["metricKey"]) == ("LINE", "val_accuracy")
    assert (rho["type"], rho["xaxis"]["key"], rho["yaxis"]["key"]) == (
        "SCATTER",
        "sam.rho",
        "score",
    )
    assert parallel["type"] == "PARALLEL"
    assert set(parallel["selectedParams"]) == set(searched)


def test_a_score_that_is_better_when_smaller_comes_smallest_first(
    tmp_path: Path, study_config: Make
) -> None:
    config = study_config(("{trials: 4,", "{trials: 4, metric: val_loss,"))
    folder = StudyFolder.create(tmp_path, config)
    assert state_of(Study(folder, config))["orderByAsc"]


def test_the_view_is_sent_again_only_if_it_has_changed(remote: StudyFolder, proxy: Proxy) -> None:
    sent = []
    for epoch in (4, 5):
        proxy.seen.clear()
        assert not Shipper(remote, proxy.uri).ship().failure
        sent.append([path for _, path in proxy.seen].count(SET_EXPERIMENT_TAG))
        append(remote.trial("t0001"), epoch)
    assert sent == [1, 0]


def test_a_view_that_mlflow_refuses_keeps_nothing_else_back(
    remote: StudyFolder, proxy: Proxy
) -> None:
    proxy.rule = lambda _, path, __: "403" if path == SET_EXPERIMENT_TAG else "pass"
    _, found = tracking.sync(remote)
    assert (found.missing, found.refused) == ("", [])
    (note,) = [note for note in found.notes if "shared view" in note]
    assert "403" in note
    assert_all_there(proxy.uri, remote)


def test_ui_of_a_study_on_a_server_prints_its_pages(
    remote: StudyFolder, direct: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", direct)
    tracking.sync(remote)
    told = samtune_here("ui", remote.name, "--storage", str(remote.root.parent), cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    names = [line.split()[0] for line in told.stdout.splitlines() if f"{direct}/#/" in line]
    assert names == ["charts", "trials", "compare", "study"]


SET_EXPERIMENT_TAG = "/api/2.0/mlflow/experiments/set-experiment-tag"


def _experiment(uri: str) -> str:
    experiment = mlflow.MlflowClient(uri).get_experiment_by_name("tiny")
    assert experiment is not None
    return str(experiment.experiment_id)


def _search(uri: str, folder: StudyFolder) -> list[mlflow.entities.Run]:
    mine = f"tags.`samtune.study_id` = '{folder.study_id}'"
    return list(mlflow.MlflowClient(uri).search_runs([_experiment(uri)], mine))
