"""The best trial's model in MLflow's registry."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from samtune.study.study import Trial
from samtune.tracking.description import description_of_model
from samtune.tracking.redaction import redacted
from samtune.tracking.runs import STUDY_TAG, TRIAL_TAG, sent_once

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from samtune.export.about import About
    from samtune.study.weights import TrainedModel

EPOCH_TAG = "samtune.epoch"


def register(
    client: MlflowClient, uri: str, registry_uri: str, best: Trial, run_id: str, name: str
) -> None:
    """Logs the trial's model and points the alias `champion` of the registered model at it.

    Args:
        run_id: the trial's run; its state is left as it is.
        name: what the registered model is called.
    """
    from samtune.export.about import about
    from samtune.study.weights import load_trained

    trained = load_trained(best)
    said = about(name, best.metric, trained)
    said = replace(said, model=redacted(said.model), config=redacted(said.config))
    tags = {
        STUDY_TAG: client.get_run(run_id).data.tags[STUDY_TAG],
        TRIAL_TAG: best.key,
        EPOCH_TAG: str(trained.epoch),
    }
    version = _registered(client, name, tags)
    if version is None:
        with _as_defaults(uri, registry_uri):
            version = _log(trained, said, run_id, name, tags)
    for key, value in _said_of(said).items():
        client.set_model_version_tag(name, version, key, value)
    client.update_model_version(name, version, description_of_model(said, best))
    client.set_registered_model_alias(name, "champion", version)


def _said_of(said: About) -> dict[str, str]:
    """What one filters versions by, and what goes in and comes out, as tags."""
    metrics = {f"samtune.{name}": f"{value:.6g}" for name, value in said.metrics.items()}
    return metrics | {
        "samtune.metric": said.metric,
        "samtune.rho": f"{said.config['sam']['rho']:.6g}",
        "samtune.model": str(said.model["name"]),
        "samtune.task": said.task,
        "samtune.input": f"{said.input.in_words}, {said.input.takes}",
        "samtune.mean": str(said.input.mean),
        "samtune.std": str(said.input.std),
        "samtune.classes": json.dumps(said.classes),
    }


def rename_model(client: MlflowClient, old: str, new: str) -> None:
    """Renames the registered model of a study that was renamed, unless the new name is taken."""
    if old != new and not client.search_model_versions(f"name = '{new}'"):
        client.rename_registered_model(old, new)


@contextmanager
def _as_defaults(uri: str, registry_uri: str) -> Iterator[None]:
    """MLflow's own defaults while a model is logged, which takes no client; then as they were.

    MLflow also writes them into the environment, where the next study's shipping would find them.
    """
    import mlflow

    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    before = {name: os.environ[name] for name in names if name in os.environ}
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(registry_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # which is how it forgets
        mlflow.set_registry_uri(None)  # type: ignore[arg-type]
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def _registered(client: MlflowClient, name: str, tags: dict[str, str]) -> str | None:
    """The version with these tags: an earlier try may have made it and never heard of it."""
    for version in client.search_model_versions(f"name = '{name}'"):
        if tags.items() <= version.tags.items():
            return str(version.version)
    return None


def _log(trained: TrainedModel, said: About, run_id: str, name: str, tags: dict[str, str]) -> str:
    from mlflow.models import Model

    from samtune.export import mlflow as flavor
    from samtune.export.base import with_preprocessing
    from samtune.export.comparison import plain_images

    with sent_once():
        # Not inside `mlflow.start_run`, which would end the run anew: FINISHED, or FAILED where
        # the model cannot be logged.
        logged = Model.log(
            artifact_path=None,
            name="model",
            flavor=flavor,
            run_id=run_id,
            # The model of `samtune export --format mlflow`, which takes images as they are.
            model=with_preprocessing(trained.model, said),
            about=said,
            example=plain_images(trained.data, 2),
            registered_model_name=name,
            tags=tags,
        )
    return str(logged.registered_model_version)
