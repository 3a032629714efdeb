"""Writes one study's trials, and what is said of all of them, into their runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samtune.analysis import answer
from samtune.config.schema import StudyConfig
from samtune.config.study_file import to_yaml
from samtune.config.trial import TrialConfig
from samtune.config.yaml_reader import read_yaml
from samtune.files import sha256_of
from samtune.secrets import without_password
from samtune.study.journal import Entry, now_ms
from samtune.study.manifest import CONFIRM_FILE, REPORT_FILE
from samtune.study.study import Study, Trial
from samtune.study.used_data import used_data
from samtune.tracking import fields
from samtune.tracking.datasets import inputs
from samtune.tracking.description import description
from samtune.tracking.faults import is_about_content, words
from samtune.tracking.links import artifact_link, charts_link
from samtune.tracking.plot import score_against_rho
from samtune.tracking.records import Shipped, ShippedRun, run_status
from samtune.tracking.redaction import redacted
from samtune.tracking.runs import PARENT, PARENT_TAG, Runs
from samtune.tracking.view import GAIN, SCORE, STATE_TAG, view, view_tag
from samtune.working_copy import current

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, Run

REASON_TAG = "samtune.reason"
NOTE_TAG = "mlflow.note.content"  # shown as the run's description
VERSIONS_TAG = "samtune.versions"
PLOT_FILE = "score_against_rho.svg"
METRICS_PER_BATCH = 1000  # the server's own limits
PARAMS_PER_BATCH = 100
RUN_STATUS = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "stopped": "FINISHED",
    "diverged": "FAILED",
    "out_of_memory": "FAILED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


class Writer:
    """Writes a study's runs, knowing what they hold by `shipped` and a survey of MLflow.

    Args:
        found: the runs that MLflow has, by trial.

    Attributes:
        fresh: whether `found` is of this very round, so that a refusal is about what was sent.
    """

    def __init__(self, runs: Runs, shipped: Shipped, found: dict[str, Run]) -> None:
        self.client: MlflowClient = runs.client
        self.runs = runs
        self.shipped = shipped
        self.found = found
        self.fresh = True

    def trial(self, study: Study, trial: Trial, parent: str) -> int:
        """Brings a trial's run to where its journal is; returns how many epochs went."""
        record = self.shipped.trials.setdefault(trial.key, ShippedRun())
        run = self._run_of(trial, record, parent)
        fresh = trial.epochs[record.epochs :]
        is_news = record.state != trial.state or bool(fresh and trial.outcome)
        score = _score_point(trial) if is_news or fresh else None
        gain = _gain_point(study, trial) if is_news else None
        self._send(
            record,
            self._missing_params(run, record, _settings(trial)),
            fresh,
            [point for point in (score, gain) if point],
            _state_tags(run, trial) if is_news else {},
        )
        record.params = bool(trial.epochs)  # what `auto` comes to, the worker tells
        record.gain = gain.value if gain else record.gain
        record.epochs = len(trial.epochs)
        record.last_ms = trial.epochs[-1].time_ms if trial.epochs else 0
        if trial.epochs:
            self._datasets(record, study.folder.root, trial.config)
        status = RUN_STATUS[trial.state]
        is_as_made = status == run.info.status == "RUNNING" and not record.state
        if is_news and not is_as_made:
            self._status(run, status, fields.ended_ms(trial))
        record.state = trial.state
        return len(fresh)

    def _run_of(self, trial: Trial, record: ShippedRun, parent: str) -> Run:
        if record.run_id and record.contradicts(trial):
            # The journal lost epochs to damage, and they were trained again: points cannot go.
            self.client.delete_run(record.run_id)
            record.reset()
            self.found.pop(trial.key, None)
        started_ms = fields.started_ms(trial)
        run = self._run(trial.key, fields.run_name(trial), started_ms, {PARENT_TAG: parent})
        record.run_id = run.info.run_id
        return run

    def parent(self, study: Study) -> str:
        """The id of the study's own run, with its parameters."""
        is_new = PARENT not in self.found
        if is_new:
            start = min((fields.started_ms(trial) for trial in study.trials), default=now_ms())
            begun = datetime.fromtimestamp(start / 1000, UTC)
            versions = study.folder.manifest.versions
            said = ", ".join(f"{name} {version}" for name, version in versions.items())
            # The time in its name tells it from a study of this name that was deleted.
            name = f"{study.name} {begun:%Y-%m-%d %H:%M}"
            run = self._run(PARENT, name, start, {VERSIONS_TAG: said})
        else:
            run = self.found[PARENT]
        if is_new and self.runs.other_studies():
            self.shipped.add_note(
                f"MLflow: experiment {study.name!r} also holds an earlier study of this name; "
                f"the runs of this one are those with tags.`samtune.study_id` = "
                f"'{self.runs.study_id}', under {run.info.run_name!r}"
            )
        self.shipped.parent.run_id = run.info.run_id
        settings = study.config.model_dump(include={"trial", "study"}, mode="json")
        self._params(self.shipped.parent, self._missing_params(run, self.shipped.parent, settings))
        self.shipped.parent.params = True
        self._datasets(self.shipped.parent, study.folder.root, study.config.trial)
        return str(run.info.run_id)

    def summary(self, study: Study) -> None:
        """The study's state, best trial and baseline in its own run; once it rests, its answer."""
        from mlflow.entities import Metric

        best, baseline = study.best, study.baseline
        status = run_status(study)
        summary: dict[str, Any] = {
            "study": study.name,  # which its description names
            "status": status,
            "best": best and [best.key, best.value],
            "baseline": baseline and baseline.value,
        }
        if tuned := study.tuned_baseline:
            summary["tuned"] = [tuned.state, tuned.best and tuned.best.value]
        if self.shipped.summary == summary:
            return
        run = self.found[PARENT]
        if best and best.selected_epoch and best.value is not None:
            when = best.selected_epoch.time_ms
            points = [Metric(SCORE, best.value, when, 0)]
            if baseline and baseline.value is not None:
                points.append(Metric(f"baseline_{SCORE}", baseline.value, when, 0))
                points.append(Metric(GAIN, _gain(study, best), when, 0))
            if tuned and not tuned.left and tuned.best and tuned.best.value is not None:
                points.append(Metric(f"tuned_baseline_{SCORE}", tuned.best.value, when, 0))
            self._points(run.info.run_id, points)
            self.client.set_tag(run.info.run_id, "samtune.best_trial", best.key)
        if status != "RUNNING":
            self._answer(study, run.info.run_id)
        ends = [fields.ended_ms(trial) for trial in study.trials]
        self._status(run, status, max(ends, default=now_ms()))
        self.shipped.summary = summary

    def _answer(self, study: Study, run_id: str) -> None:
        """What the study has found, as its description, which shows its plot."""
        found, link = answer(study).response, ""
        drawn = score_against_rho(study, found) if found else ""
        if drawn:
            with self._set_aside(self.shipped.parent, PLOT_FILE):
                self.client.log_text(run_id, drawn, PLOT_FILE)
                link = f"![score against rho]({artifact_link(run_id, PLOT_FILE)})"
        charts = f"[Its trials in charts]({charts_link(self.runs.experiment_id, study)})"
        self.client.set_tag(run_id, NOTE_TAG, fields.tag(description(study, charts, link)))

    def gains(self, study: Study) -> None:
        """By how much each ended trial is better than the baseline, once that has finished."""
        for trial in study.trials:
            record, gain = self.shipped.trials.get(trial.key), _gain_point(study, trial)
            if record and gain and record.gain != gain.value:
                self._points(record.run_id, [gain])
                record.gain = gain.value

    def view(self, study: Study) -> None:
        """The run table as the study wants it seen, among the experiment's shared views."""
        info = self.found[PARENT].info
        value = view(study, info.run_name, info.start_time)
        digest = hashlib.sha256(value.encode()).hexdigest()
        if self.shipped.view != digest:
            self.client.set_experiment_tag(
                self.runs.experiment_id, view_tag(self.runs.study_id), value
            )
            self.shipped.view = digest

    def study_file(self, study: Study) -> None:
        """The resolved study file, without its secrets, as an artifact of the study's run."""
        raw = redacted(read_yaml(study.folder.root / "study.yaml").value)
        text = to_yaml(StudyConfig.model_validate(raw))
        digest = hashlib.sha256(text.encode()).hexdigest()
        if self.shipped.study_file != digest:
            self.client.log_text(self.shipped.parent.run_id, text, "study.yaml")
            self.shipped.study_file = digest

    def page(self, study: Study) -> None:
        """The page that `samtune report` has written, if it has."""
        path = current(study.folder.root / REPORT_FILE)
        digest = sha256_of(path)  # empty where there is none
        if digest and self.shipped.page != digest:
            self.client.log_artifact(self.shipped.parent.run_id, str(path))
            self.shipped.page = digest

    def confirmation(self, study: Study) -> None:
        """What a confirmation found, in its own run: table, verdict, and the gains as metrics."""
        from mlflow.entities import Metric

        try:
            text = (study.folder.root / CONFIRM_FILE).read_text()
        except FileNotFoundError:
            return  # it is another study, or has not come to its end
        digest = hashlib.sha256(text.encode()).hexdigest()
        if self.shipped.confirmation == digest:
            return
        run_id, found = self.shipped.parent.run_id, json.loads(text)
        self.client.log_text(run_id, text, CONFIRM_FILE)
        self.client.set_tag(run_id, "samtune.verdict", fields.tag(found["verdict"]))
        ends = [fields.ended_ms(trial) for trial in study.trials]
        points = [
            Metric(f"gain_at_{_metric_name(baseline['equal'])}", gain["mean"], max(ends), 0)
            for row in found["rows"]
            for baseline in row["baselines"]
            if row["trial"] == found["chosen"] and (gain := baseline["gain"])
        ]
        self._points(run_id, points)
        self.shipped.confirmation = digest

    def _run(self, key: str, name: str, start_ms: int, tags: dict[str, str]) -> Run:
        run = self.found.get(key)
        if run is None and not self.fresh:  # else the survey has just looked for all of them
            run = self.runs.find(key)
        if run is None:
            run = self.runs.create(key, name, start_ms, tags)
        for tag, value in tags.items():
            if run.data.tags.get(tag) != value:
                self.client.set_tag(run.info.run_id, tag, value)
        self.found[key] = run
        return run

    def _send(
        self,
        record: ShippedRun,
        params: list[Param],
        fresh: Sequence[Entry],
        score: list[Metric],
        tags: dict[str, str],
    ) -> None:
        """All in one request, which costs more than what it holds, or else part by part.

        Of what is refused as a whole, the parts may be taken.
        """
        from mlflow.entities import RunTag

        points = [*score, *fields.points(fresh)]  # a comparison opens on a run's first metric
        size = len(params) + len(points) + len(tags)
        if 0 < size <= METRICS_PER_BATCH and len(params) <= PARAMS_PER_BATCH:
            try:
                sent = [RunTag(key, value) for key, value in tags.items()]
                self.client.log_batch(record.run_id, points, params, sent)
                return
            except Exception as error:
                if not self._is_refused(error):
                    raise
        self._params(record, params)
        self._epochs(record, fresh)
        self._points(record.run_id, score)
        for key, value in tags.items():
            self.client.set_tag(record.run_id, key, value)

    def _missing_params(
        self, run: Run, record: ShippedRun, settings: dict[str, Any]
    ) -> list[Param]:
        """Those it does not have: MLflow never lets one change, however a study is extended."""
        if record.params:
            return []
        return [p for p in fields.params(settings) if p.key not in run.data.params]

    def _params(self, record: ShippedRun, params: list[Param]) -> None:
        for start in range(0, len(params), PARAMS_PER_BATCH):
            with self._set_aside(record, "parameters"):
                batch = params[start : start + PARAMS_PER_BATCH]
                self.client.log_batch(record.run_id, params=batch)

    def _datasets(self, record: ShippedRun, study: Path, config: TrialConfig) -> None:
        """The splits it was trained and judged on; MLflow keeps each pair of run and split once."""
        used = None if record.datasets else used_data(study, config)
        if used is None:
            return
        with self._set_aside(record, "data sets"):
            self.client.log_inputs(record.run_id, inputs(used, config.dataset))
        record.datasets = True

    def _epochs(self, record: ShippedRun, fresh: Sequence[Entry]) -> None:
        try:
            self._points(record.run_id, fields.points(fresh))
        except Exception as error:
            if not self._is_refused(error):
                raise
            for entry in fresh:  # one of them is not wanted: the others need not wait for it
                with self._set_aside(record, f"epoch {entry.epoch}"):
                    self._points(record.run_id, fields.points([entry]))

    @contextmanager
    def _set_aside(self, record: ShippedRun, name: str) -> Iterator[None]:
        """Notes what MLflow refuses, so that the rest goes on."""
        try:
            yield
        except Exception as error:
            if not self._is_refused(error):
                raise
            record.refused[name] = without_password(words(error))

    def _is_refused(self, error: Exception) -> bool:
        # A run that was deleted since the survey refuses everything in the same way.
        return self.fresh and is_about_content(error)

    def _points(self, run_id: str, points: list[Metric]) -> None:
        for start in range(0, len(points), METRICS_PER_BATCH):
            self.client.log_batch(run_id, metrics=points[start : start + METRICS_PER_BATCH])

    def _status(self, run: Run, status: str, end_ms: int) -> None:
        if status == "RUNNING":
            self.client.update_run(run.info.run_id, status="RUNNING")
        else:
            # Two machines' clocks may differ; a run that ends before it starts helps nobody.
            end_ms = max(end_ms, run.info.start_time)
            self.client.set_terminated(run.info.run_id, status, end_time=end_ms)


def _settings(trial: Trial) -> dict[str, Any]:
    settings = trial.config.model_dump(mode="json")
    settings["training"]["precision"] = trial.precision
    if not trial.epochs:
        del settings["training"]["precision"]  # what `auto` comes to, the worker tells
    return settings


def _state_tags(run: Run, trial: Trial) -> dict[str, str]:
    tags: dict[str, str] = {STATE_TAG: trial.state}
    reason = without_password(trial.outcome.reason) if trial.outcome else ""
    if reason or REASON_TAG in run.data.tags:  # of a failure that was tried again
        tags[REASON_TAG] = fields.tag(reason)
    return tags


def _score_point(trial: Trial) -> Metric | None:
    """What a trial counts by: so far, or for good."""
    from mlflow.entities import Metric

    chosen = trial.selected_epoch
    if chosen is None:
        return None
    return Metric(SCORE, chosen.metrics[trial.metric], chosen.time_ms, chosen.epoch)


def _gain_point(study: Study, trial: Trial) -> Metric | None:
    """By how much an ended trial is better than a baseline that has finished."""
    from mlflow.entities import Metric

    baseline, chosen = study.baseline, trial.selected_epoch
    if baseline is None or baseline.state != "finished" or trial.is_baseline:
        return None
    if not trial.outcome or chosen is None:
        return None
    return Metric(GAIN, _gain(study, trial), chosen.time_ms, chosen.epoch)


def _metric_name(equal: str) -> str:
    """`equal_epochs`, and `equal_epochs_when_tuned` whatever the number of trials."""
    return equal.partition(" by ")[0].replace(" ", "_")


def _gain(study: Study, trial: Trial) -> float:
    """By how much its score is better than the baseline's."""
    baseline = study.baseline
    assert baseline is not None
    assert baseline.value is not None
    assert trial.value is not None
    return trial.value - baseline.value if trial.mode == "max" else baseline.value - trial.value
