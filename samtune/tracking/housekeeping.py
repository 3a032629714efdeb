"""What becomes of a study's records in MLflow when the study is renamed or deleted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from samtune.errors import SamtuneError
from samtune.study.folder import StudyFolder
from samtune.tracking.faults import is_refusal, words
from samtune.tracking.records import Shipped
from samtune.tracking.redaction import masked
from samtune.tracking.runs import STUDY_TAG, Runs
from samtune.tracking.store import store_of, use_client_environment
from samtune.tracking.view import view_tag

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def follow_name(client: MlflowClient, name: str, study_id: str, run_id: str) -> str:
    """Renames the experiment of a study that was renamed, and the study's own run in it.

    Args:
        run_id: that run, if MLflow has one.

    Returns:
        A sentence where that cannot be, so that the study begins another experiment.
    """
    run = _run(client, run_id)
    if run is None:
        return ""
    experiment = client.get_experiment(run.info.experiment_id)
    old = experiment.name
    if old == name:
        return ""
    if Runs(client, experiment.experiment_id, study_id).other_studies():
        return f"MLflow: experiment {old!r} has another study's runs, too, and keeps its name"
    if client.get_experiment_by_name(name):
        return f"MLflow: there is an experiment {name!r} already, so {old!r} keeps its name"
    client.rename_experiment(experiment.experiment_id, name)
    client.set_tag(run_id, "mlflow.runName", run.info.run_name.replace(old, name, 1))
    return ""


def delete_records(folder: StudyFolder) -> int:
    """Deletes a study's runs and the versions of its model; returns how many runs there were.

    MLflow keeps what was deleted until `mlflow gc`. An experiment or a registered model that holds
    nothing else goes with it.

    Raises:
        SamtuneError: MLflow cannot be reached, or refuses.
    """
    from mlflow import MlflowClient

    use_client_environment()
    store = store_of(folder.root)
    client = MlflowClient(store.uri, os.environ.get("MLFLOW_REGISTRY_URI") or store.uri)
    try:
        return _delete(client, folder)
    except Exception as error:  # whatever MLflow's client raises
        reason = masked(words(error), [store.uri])
        raise SamtuneError(f"MLflow at {store.address}: {reason}") from error


def _delete(client: MlflowClient, folder: StudyFolder) -> int:
    study_id = folder.manifest.study_id
    run = _run(client, Shipped.read(folder.root).parent.run_id)
    experiment = (
        client.get_experiment(run.info.experiment_id)
        if run
        else client.get_experiment_by_name(folder.name)
    )
    versions = client.search_model_versions(f"name = '{folder.name}'")
    for version in versions:
        if version.tags.get(STUDY_TAG) == study_id:
            client.delete_model_version(version.name, version.version)
    if versions and not client.search_model_versions(f"name = '{folder.name}'"):
        client.delete_registered_model(folder.name)
    if experiment is None:
        return 0
    runs = Runs(client, experiment.experiment_id, study_id)
    deleted = runs.delete()
    if view_tag(study_id) in experiment.tags:
        client.delete_experiment_tag(experiment.experiment_id, view_tag(study_id))
    if not client.search_runs([experiment.experiment_id], max_results=1):
        client.delete_experiment(experiment.experiment_id)
    return deleted


def _run(client: MlflowClient, run_id: str) -> Run | None:
    """A run, unless MLflow does not know it any more."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id) if run_id else None
    except MlflowException as error:
        if not is_refusal(error):
            raise
        return None
