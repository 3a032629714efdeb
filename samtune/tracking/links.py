"""Places in the MLflow UI, relative to its address."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote, urlencode

from samtune.study.study import Study

MODEL_TRAINING = {"workflowType": "machine_learning"}  # else a new browser shows GenAI's pages


def charts_link(experiment_id: str, study: Study) -> str:
    """The study's view, with its charts beside its trials."""
    return _link(_runs(experiment_id), {**_view(study), "compareRunsMode": "CHART"})


def trials_link(experiment_id: str, study: Study) -> str:
    """The study's view as a table."""
    return _link(_runs(experiment_id), _view(study))


def compare_link(experiment_id: str, run_ids: Sequence[str]) -> str:
    """Runs side by side."""
    shown = {"runs": json.dumps(run_ids), "experiments": json.dumps([experiment_id])}
    # That page looks for `?runs` by this very text, so `runs` comes first.
    return _link("#/compare-runs", {**shown, **MODEL_TRAINING})


def run_link(experiment_id: str, run_id: str) -> str:
    """One run."""
    return _link(f"{_runs(experiment_id)}/{run_id}", MODEL_TRAINING)


def artifact_link(run_id: str, path: str) -> str:
    """A file of a run, as its description can show an image."""
    return _link("get-artifact", {"path": path, "run_uuid": run_id})


def _runs(experiment_id: str) -> str:
    return f"#/experiments/{experiment_id}/runs"


def _view(study: Study) -> dict[str, str]:
    return {**MODEL_TRAINING, "viewStateShareKey": study.folder.manifest.study_id}


def _link(path: str, query: dict[str, str]) -> str:
    return f"{path}?{urlencode(query, quote_via=quote)}"
