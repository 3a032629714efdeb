"""Brings MLflow to where the journals are."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from samtune.errors import SamtuneError
from samtune.files import read_json, write_json
from samtune.study.folder import StudyFolder
from samtune.study.study import Study, Trial
from samtune.tracking.store import CLIENT_ENVIRONMENT, masked, tracking_uri, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRICS_PER_BATCH = 1000  # the server's own limit
RUN_STATUS = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "stopped": "FINISHED",
    "diverged": "FAILED",
    "out_of_memory": "FAILED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


def pending(root: Path) -> int:
    """How many finished epochs MLflow has not taken yet."""
    folder = StudyFolder(root)
    shipped = _read_shipped(folder).trials
    study = Study(folder, folder.config())
    return sum(len(t.epochs) - shipped.get(t.key, _ShippedTrial()).epochs for t in study.trials)


def sync(folder: StudyFolder, uri: str | None = None) -> int:
    """Ships everything MLflow has not taken yet; returns the number of epochs that went.

    Raises:
        SamtuneError: MLflow cannot be reached or refuses; nothing is lost by it.
    """
    os.environ.update(CLIENT_ENVIRONMENT)
    uri = uri or tracking_uri()
    try:
        with FileLock(folder.root / "tracking.lock", timeout=0):
            shipper = Shipper(folder, uri)
            sent = shipper.ship()
            if not folder.is_running:
                shipper.register_champion()
            return sent
    except Timeout:
        raise SamtuneError("another process is shipping this study; try again later") from None
    except SamtuneError:
        raise
    except Exception as error:
        reason = " ".join(masked(str(error), uri).split())[:300]
        raise SamtuneError(f"MLflow at {without_password(uri)}: {reason}") from error


@dataclass
class _ShippedTrial:
    epochs: int = 0
    state: str = ""
    run_id: str = ""


@dataclass
class _Shipped:
    """What MLflow has taken: what `tracking.json` holds."""

    uri: str = ""
    trials: dict[str, _ShippedTrial] = field(default_factory=dict)
    parent: str = ""
    summary: dict[str, Any] | None = None
    champion: dict[str, Any] | None = None


class Shipper:
    """Brings MLflow to where the journals are.

    Runs are found by tags, never only by memory, so a lost `tracking.json` doubles nothing.
    """

    def __init__(self, folder: StudyFolder, uri: str) -> None:
        from mlflow import MlflowClient

        self.folder = folder
        self.uri = uri
        self.client: MlflowClient = MlflowClient(uri, uri)
        self.study_id = folder.manifest.study_id
        self.shipped = _read_shipped(folder)
        shown = without_password(uri)
        if self.shipped.uri != shown:  # another server knows nothing of what the first one has
            self.shipped = _Shipped(shown)
        self.experiment_id = self._experiment()

    def ship(self) -> int:
        """One pass over all trials; returns how many epochs went."""
        study = Study(self.folder, self.folder.config())
        parent = self._parent(study)
        sent = sum(self._ship_trial(trial, parent) for trial in study.trials)
        self._finish_parent(study, parent)
        write_json(self.folder.root / "tracking.json", asdict(self.shipped))
        return sent

    def register_champion(self) -> None:
        """Logs the best trial's model and points the alias `champion` at it."""
        import mlflow
        import torch

        from samtune.study.weights import load_trained

        study = Study(self.folder, self.folder.config())
        best = study.best
        if best is None or best.selected_epoch is None:
            return
        champion = {"trial": best.key, "epoch": best.selected_epoch.epoch}
        if self.shipped.champion == champion:
            return
        run_id = self.shipped.trials[best.key].run_id
        trained = load_trained(best)
        images, _ = next(iter(trained.data.val_batches(2, torch.device("cpu")).in_order()))
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        with mlflow.start_run(run_id=run_id):
            logged = mlflow.pytorch.log_model(
                trained.model,
                name="model",
                # Two images: an example of one would fix the batch size at one.
                input_example=images.contiguous().numpy(),
                registered_model_name=self.folder.name,
                pip_requirements=_requirements(),
                metadata={"samtune": json.dumps(trained.recipe)},
            )
        # `start_run` has ended the run as FINISHED, whatever it was.
        self._set_status(run_id, RUN_STATUS[best.state], best.epochs)
        version = str(logged.registered_model_version)
        self.client.set_registered_model_alias(self.folder.name, "champion", version)
        self.shipped.champion = champion
        write_json(self.folder.root / "tracking.json", asdict(self.shipped))

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(self.folder.name)
        if found is None:
            tags = {"mlflow.experimentKind": "custom_model_development"}  # not the GenAI view
            return str(self.client.create_experiment(self.folder.name, tags=tags))
        if found.lifecycle_stage == "deleted":
            raise SamtuneError(
                f"the MLflow experiment {self.folder.name!r} was deleted: restore it with "
                f"`mlflow experiments restore -x {found.experiment_id}`, or remove it for good "
                "with `mlflow gc`."
            )
        return str(found.experiment_id)

    def _parent(self, study: Study) -> str:
        if self.shipped.parent:
            return self.shipped.parent
        run_id, is_new = self._find_or_create("", {}, study.name)
        if is_new:
            search = study.config.study
            self._log_params(
                run_id,
                {
                    **_flat({"trial": study.config.trial.model_dump(mode="json")}),
                    **_flat({"study": search.model_dump(mode="json")}),
                },
            )
        self.client.log_artifact(run_id, str(self.folder.root / "study.yaml"))
        self.shipped.parent = run_id
        return run_id

    def _ship_trial(self, trial: Trial, parent: str) -> int:
        from mlflow.entities import Metric

        record = self.shipped.trials.setdefault(trial.key, _ShippedTrial())
        if record.state == trial.state and record.epochs == len(trial.epochs):
            return 0
        if not record.run_id:
            name = f"{trial.key} baseline" if trial.is_baseline else trial.key
            record.run_id, is_new = self._find_or_create(
                trial.key, {"mlflow.parentRunId": parent}, name
            )
            if is_new:
                self._log_params(record.run_id, _flat(trial.config.model_dump(mode="json")))
        run_id = record.run_id
        fresh = trial.epochs[record.epochs :]
        points = [
            Metric(name, value, entry.time_ms, entry.epoch)
            for entry in fresh
            for name, value in {**entry.metrics, "epoch_duration_s": entry.duration_s}.items()
        ]
        best = trial.best_epoch
        if best and trial.outcome:
            name = f"best_{trial.metric}"
            points.append(Metric(name, best.metrics[trial.metric], best.time_ms, best.epoch))
        for start in range(0, len(points), METRICS_PER_BATCH):
            self.client.log_batch(run_id, metrics=points[start : start + METRICS_PER_BATCH])
        if record.state != trial.state:
            self.client.set_tag(run_id, "samtune.state", trial.state)
            if trial.outcome and trial.outcome.reason:
                self.client.set_tag(run_id, "samtune.reason", trial.outcome.reason)
            self._set_status(run_id, RUN_STATUS[trial.state], trial.epochs)
        record.epochs, record.state = len(trial.epochs), trial.state
        return len(fresh)

    def _finish_parent(self, study: Study, parent: str) -> None:
        from mlflow.entities import Metric

        status = "RUNNING" if study.is_running else "FINISHED"
        if study.state == "interrupted":
            status = "KILLED"
        best, baseline = study.best, study.baseline
        summary: dict[str, Any] = {"status": status, "best": best and [best.key, best.value]}
        if self.shipped.summary == summary:
            return
        if best and best.selected_epoch and best.value is not None:
            now = best.selected_epoch.time_ms
            points = [Metric(f"best_{study.metric}", best.value, now, 0)]
            if baseline and baseline.value is not None:
                points.append(Metric(f"baseline_{study.metric}", baseline.value, now, 0))
            self.client.log_batch(parent, metrics=points)
            self.client.set_tag(parent, "samtune.best_trial", best.key)
        self._set_status(parent, status, [])
        self.shipped.summary = summary

    def _find_or_create(self, key: str, tags: dict[str, str], name: str) -> tuple[str, bool]:
        tags = {
            "samtune.study_id": self.study_id,
            "samtune.trial": key or "study",
            "mlflow.source.name": "samtune",
            **tags,
        }
        condition = " and ".join(
            f"tags.`{tag}` = '{tags[tag]}'" for tag in ("samtune.study_id", "samtune.trial")
        )
        found = self.client.search_runs([self.experiment_id], condition, max_results=1)
        if found:
            return str(found[0].info.run_id), False
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=name)
        return str(run.info.run_id), True

    def _log_params(self, run_id: str, values: dict[str, Any]) -> None:
        from mlflow.entities import Param

        params = [Param(key, str(value)) for key, value in values.items()]
        for start in range(0, len(params), 100):
            self.client.log_batch(run_id, params=params[start : start + 100])

    def _set_status(self, run_id: str, status: str, epochs: list[Any]) -> None:
        if status == "RUNNING":
            self.client.update_run(run_id, status="RUNNING")
        else:
            end = epochs[-1].time_ms if epochs else None
            self.client.set_terminated(run_id, status, end_time=end)


def _requirements() -> list[str]:
    from importlib.metadata import version

    return [f"torch=={version('torch')}", f"numpy=={version('numpy')}"]


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted paths."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def _read_shipped(folder: StudyFolder) -> _Shipped:
    return read_json(folder.root / "tracking.json", _Shipped) or _Shipped()
