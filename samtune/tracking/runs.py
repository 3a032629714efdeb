"""A study's runs in MLflow: found by their tags, made when there are none, one for each trial."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from samtune.errors import SamtuneError
from samtune.tracking.faults import is_refusal

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PARENT = "study"
STUDY_TAG, TRIAL_TAG, PARENT_TAG = "samtune.study_id", "samtune.trial", "mlflow.parentRunId"
PAGE = 1000


class Runs:
    """One study's runs in one experiment.

    A run is known by the tags `samtune.study_id` and `samtune.trial`, never by memory alone: a
    reply that was lost after MLflow had made a run leaves it there to be found.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, study_id: str) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.study_id = study_id

    def survey(self, known: Mapping[str, str]) -> dict[str, Run]:
        """All runs of the study by trial, each trial's once: what is there twice is deleted.

        Args:
            known: the run of each trial that has been written to; it is the one to keep.
        """
        twins: dict[str, list[Run]] = {}
        for run in self._search(f"tags.`{STUDY_TAG}` = '{self.study_id}'"):
            twins.setdefault(run.data.tags.get(TRIAL_TAG, ""), []).append(run)
        kept: dict[str, Run] = {}
        for key, runs in twins.items():
            runs.sort(key=lambda run: (run.info.start_time, run.info.run_id))
            chosen = next((r for r in runs if r.info.run_id == known.get(key)), runs[0])
            for other in runs:
                if other is not chosen:
                    self.client.delete_run(other.info.run_id)
            kept[key] = chosen
        return kept

    def find(self, key: str) -> Run | None:
        """The run of a trial, if MLflow has one."""
        condition = f"tags.`{STUDY_TAG}` = '{self.study_id}' and tags.`{TRIAL_TAG}` = '{key}'"
        return next(self._search(condition), None)

    def create(self, key: str, name: str, start_ms: int, tags: Mapping[str, str]) -> Run:
        """A new run, with these tags beside its own; look for it first."""
        own = {STUDY_TAG: self.study_id, TRIAL_TAG: key, "mlflow.source.name": "samtune"}
        with sent_once():
            return self.client.create_run(
                self.experiment_id, start_time=start_ms, tags={**own, **tags}, run_name=name
            )

    def delete(self) -> int:
        """Deletes all runs of the study; returns how many there were."""
        runs = list(self._search(f"tags.`{STUDY_TAG}` = '{self.study_id}'"))
        for run in runs:
            self.client.delete_run(run.info.run_id)
        return len(runs)

    def other_studies(self) -> bool:
        """Whether the experiment has runs of another study: one of this name that was deleted."""
        condition = f"tags.`{STUDY_TAG}` != '{self.study_id}' and tags.`{TRIAL_TAG}` = '{PARENT}'"
        return next(self._search(condition, page=1), None) is not None

    def _search(self, condition: str, page: int = PAGE) -> Iterator[Run]:
        token = None
        while True:
            found = self.client.search_runs(
                [self.experiment_id], condition, max_results=page, page_token=token
            )
            yield from found
            token = found.token
            if not token:
                return


def open_experiment(client: MlflowClient, name: str) -> tuple[str, bool]:
    """The id of an experiment of this name, and whether it had been deleted.

    MLflow keeps the name of a deleted experiment, so the only way back is to restore it.

    Raises:
        SamtuneError: it was deleted, and this server does not restore it.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        tags = {"mlflow.experimentKind": "custom_model_development"}  # not the GenAI view
        with sent_once():
            return str(client.create_experiment(name, tags=tags)), False
    was_deleted = found.lifecycle_stage == "deleted"
    if was_deleted:
        try:
            client.restore_experiment(found.experiment_id)
        except MlflowException as error:
            if not is_refusal(error):
                raise
            raise SamtuneError(
                f"the MLflow experiment {name!r} was deleted, and this server does not restore "
                f"it: remove it for good with `mlflow gc --experiment-ids {found.experiment_id}`"
            ) from error
    return str(found.experiment_id), was_deleted


@contextmanager
def sent_once() -> Iterator[None]:
    """Keeps MLflow's client from sending a request again, whatever the user's settings.

    What makes something anew must not be sent twice: the first reply may only have been lost.
    """
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
