"""Whole studies on a local Ray: the main job, faults, kills and signals, and what MLflow has."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from samtune.config.schema import StudyConfig
from samtune.errors import EndedEarlyError, NoUsableTrialError, SamtuneError
from samtune.study import Study, open_study
from samtune.study.journal import Journal
from samtune.tuning import run_study
from samtune.tuning.run import Silent
from tests.commands import Ended, samtune_here, start_samtune
from tests.faults.oracle import MARK, check_nothing_left, shared_memory

Make = Callable[..., StudyConfig]


PLUGIN = '''
"""A model that misbehaves as its parameter says, once for each marker file."""
import math, os, signal, sys, time
from pathlib import Path
import torch
from torch import nn
from samtune import register_model

@register_model("misfit")
class Misfit(nn.Module):
    def __init__(self, *, num_classes: int, deed: str = "", marker: str = "", seconds: float = 0.0):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
        self.deed, self.marker, self.seconds, self.passes = deed, marker, seconds, 0

    def forward(self, images):
        logits = self.net(images)
        if not self.training or images.device.type == "meta":
            return logits
        time.sleep(self.seconds)
        self.passes += 1
        if self.marker:
            Path(self.marker + "-imports").write_text(" ".join(sys.modules))
        if self.deed == "die" and self.passes == 3:  # each attempt's second epoch
            os.kill(os.getpid(), signal.SIGKILL)
        if self.passes == 5:
            if self.deed == "raise" and not os.path.exists(f"{self.marker}.mended"):
                raise ValueError("this model cannot do five")
            if self.deed == "nan":
                return logits * math.nan
            if self.deed == "hang" and not Path(self.marker + "-hang").exists():
                Path(self.marker + "-hang").touch()
                time.sleep(1000)
            if self.deed == "kill" and not Path(self.marker + "-kill").exists():
                Path(self.marker + "-kill").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return logits
'''

STUDY = """
name: faults
plugins: [misfit_plugin]
trial:
  model: {name: misfit}
  dataset: {name: digits}
  optimizer: {name: sgd, lr: 0.1}
  sam: {rho: 0.0}
  training: {epochs: 4, batch_size: 600}
search_space:
  model.deed: {choice: ["", raise, nan, kill, hang]}
study:
  {trials: 5, sampler: grid, scheduler: none, baseline: false, resources: {cpus: 2},
  register_model: false, report: false}
"""
DEEDS = '["", raise, nan, kill, hang]'


@pytest.fixture
def workplace(tmp_path: Path, mlflow_here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the plugin in it, as the current one; whatever was begun in it must be gone."""
    (tmp_path / "misfit_plugin.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(MARK, tmp_path.name)
    memory = shared_memory()
    yield tmp_path
    check_nothing_left(tmp_path.name, tmp_path, memory, killed=False)


def _samtune(*arguments: str) -> Ended:
    return samtune_here(*arguments, cwd=Path.cwd())


def _points(name: str) -> dict[str, tuple[str, list[tuple[int, float]]]]:
    """For each trial its MLflow state and its (step, value) points of the metric."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{Path('mlflow.db').absolute()}")
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    found = {}
    for run in runs:
        assert run.info.status != "RUNNING", run.data.tags
        key = run.data.tags["samtune.trial"]
        assert key not in found, "a trial has two runs"
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        points = sorted((p.step, p.value) for p in history)
        found[key] = run.data.tags.get("samtune.state", ""), points
    return found


def _holds(name: str, printed: str) -> Study:
    """What must hold after any ending, from the files alone."""
    study = open_study(name)
    for trial in study.trials:
        lines = [e.epoch for e in Journal(trial.folder.journal).lines()]
        assert lines == list(range(1, len(lines) + 1)), trial.key
    journaled = {(t.key, e.epoch) for t in study.trials for e in t.epochs}
    shown = re.findall(r"^(t\d+)(?: \(baseline\))? epoch (\d+)/", printed, re.MULTILINE)
    assert len(shown) == len(set(shown)), "an epoch was printed twice"
    assert {(key, int(epoch)) for key, epoch in shown} <= journaled
    return study


@pytest.mark.ray
def test_faults_of_a_trial_are_its_own_and_a_lost_or_hung_worker_is_replaced(
    workplace: Path, local_ray: None
) -> None:
    marker = f"{{name: misfit, marker: {workplace / 'marker'}}}"
    (workplace / "faults.yaml").write_text(STUDY.replace("{name: misfit}", marker))
    two_at_once = ("study.epoch_timeout=8", "study.resources={cpus: 1}")
    ran = _samtune("run", "faults.yaml", "--verbose", *two_at_once)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    study = _holds("faults", ran.stdout)
    by_deed = {t.values["model.deed"]: t for t in study.trials}
    states = {deed: t.state for deed, t in by_deed.items()}
    went_on = {"": "finished", "kill": "finished", "hang": "finished"}
    assert states == went_on | {"raise": "failed", "nan": "diverged"}
    assert [len(by_deed[d].epochs) for d in ("raise", "nan")] == [2, 2]
    # What lost its worker went on from its last epoch, with the numbers of the undisturbed.
    curves = [[e.metrics["val_loss"] for e in by_deed[d].epochs] for d in went_on]
    assert len(curves[0]) == 4
    assert curves[0] == curves[1] == curves[2]
    for deed in ("kill", "hang"):
        assert (workplace / f"marker-{deed}").exists()
        assert len({e.attempt for e in by_deed[deed].epochs}) == 2
    assert "longer than study.epoch_timeout (0:00:08)" in ran.stdout
    assert "in forward" in by_deed["hang"].folder.log.read_text()
    assert "ValueError: this model cannot do five" in by_deed["raise"].folder.log.read_text()
    assert "this model cannot do five" in ran.stdout
    assert "lost its worker and goes on in another" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr

    imported = (workplace / "marker-imports").read_text().split()  # by a worker
    assert "ray.tune" in imported
    assert not {"optuna", "cmaes", "mlflow"} & set(imported)
    assert not (workplace / "samtune_studies/faults/.tune").exists()
    points = _points("faults")
    for trial in study.trials:
        state, curve = points[trial.key]
        assert state == trial.state
        assert curve == [(e.epoch, e.metrics["val_accuracy"]) for e in trial.epochs]

    done = _samtune("resume", "faults", "--plugin", "misfit_plugin")
    assert done.returncode == 0
    assert "There is nothing to do" in done.stdout


@pytest.mark.chaos
@pytest.mark.ray
def test_a_trial_whose_every_worker_dies_fails_alone_and_keeps_its_epochs(
    workplace: Path, local_ray: None
) -> None:
    (workplace / "faults.yaml").write_text(
        STUDY.replace(DEEDS, '[die, ""]').replace("epochs: 4", "epochs: 6")
    )
    ran = _samtune("run", "faults.yaml", "--verbose")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 finished, 1 failed" in ran.stdout or "1 failed, 1 finished" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr
    study = _holds("faults", ran.stdout)
    lost, well = sorted(study.trials, key=lambda t: t.state)
    assert (lost.state, well.state) == ("failed", "finished")
    assert [e.attempt for e in lost.epochs] == [1, 2, 3, 4]  # an epoch each, then killed
    assert lost.outcome is not None
    assert lost.outcome.reason.startswith("its worker was lost: ")
    assert ran.stdout.count(f"{lost.key} lost its worker and goes on in another") == 3


def _read_until(process: subprocess.Popen[str], epochs: int) -> str:
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        epochs -= " epoch " in line and "(" in line.rpartition("val_")[2]
        if epochs <= 0:
            break
    return printed


SLOW = STUDY.replace("{name: misfit}", "{name: misfit, seconds: 0.1}").replace(
    f"model.deed: {{choice: {DEEDS}}}", "optimizer.lr: {float: [0.01, 1.0]}"
)


@pytest.mark.ray
@pytest.mark.parametrize(
    "endings",
    [
        [(signal.SIGINT, 130)],
        # What a killed driver leaves is killed more cheaply in `test_search.py`, `test_bucket.py`.
        pytest.param([(signal.SIGKILL, -9), (signal.SIGINT, 130)], marks=pytest.mark.slow),
        pytest.param([(signal.SIGTERM, 143), (signal.SIGHUP, 129)], marks=pytest.mark.chaos),
    ],
)
def test_a_driver_that_is_ended_again_and_again_is_resumed_without_loss(
    workplace: Path, local_ray: None, endings: list[tuple[signal.Signals, int]]
) -> None:
    study_file = SLOW.replace("sampler: grid", "sampler: tpe")
    (workplace / "faults.yaml").write_text(study_file)
    printed = ""
    arguments = ["run", "faults.yaml"]
    for number, code in endings:
        process = start_samtune(*arguments, "--verbose")
        said = _read_until(process, 4)
        signalled = time.monotonic()
        process.send_signal(number)
        rest, _ = process.communicate(timeout=60)
        assert process.returncode == code, said + rest
        if number != signal.SIGKILL:
            assert time.monotonic() - signalled < 20
            assert "samtune resume faults" in rest
        assert "Traceback" not in rest
        printed += said + rest
        study = _holds("faults", printed)
        assert study.state == "interrupted"
        arguments = ["resume", "faults", "--plugin", "misfit_plugin"]

    before = [t.values for t in study.trials]
    resumed = _samtune(*arguments, "--verbose", "--trials", "+1")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    study = _holds("faults", printed + resumed.stdout)
    assert study.left == 0
    assert [t.state for t in study.trials] == ["finished"] * 6
    assert all(len(t.epochs) == 4 for t in study.trials)
    values = [t.values for t in study.trials]
    assert values[: len(before)] == before
    assert len({json.dumps(v) for v in values}) == 6
    points = _points("faults")
    assert {key: len(curve) for key, (_, curve) in points.items() if key != "study"} == {
        t.key: 4 for t in study.trials
    }


@pytest.mark.ray
def test_a_study_in_which_everything_fails_says_why_and_how_to_go_on(
    workplace: Path, local_ray: None
) -> None:
    study_file = STUDY.replace(DEEDS, "[raise]").replace(
        "search_space:", "search_space:\n  optimizer.lr: {choice: [0.1, 0.2, 0.3, 0.4]}"
    )
    mended = workplace / "this.mended"
    (workplace / "faults.yaml").write_text(
        study_file.replace("{name: misfit}", f"{{name: misfit, marker: {workplace / 'this'}}}")
    )
    ran = _samtune("run", "faults.yaml", "study.trials=4")
    assert ran.returncode == 1
    assert re.search(r"\d of \d trials failed in the same way", ran.stderr)
    assert "ValueError: this model cannot do five" in ran.stderr
    assert "samtune resume faults --retry-failed --plugin misfit_plugin" in ran.stderr
    assert "study faults: " in ran.stdout  # a summary all the same
    assert "Traceback" not in ran.stderr

    mended.touch()
    retry = "--retry-failed", "--verbose", "--plugin", "misfit_plugin"
    again = _samtune("resume", "faults", *retry)
    assert again.returncode == 0, again.stdout + again.stderr
    study = _holds("faults", again.stdout)
    assert [t.state for t in study.trials] == ["finished"] * 4


@pytest.mark.ray
def test_a_storage_that_fails_the_driver_for_too_long_is_said_with_the_way_on(
    workplace: Path, study_config: Make, local_ray: None
) -> None:
    trials = workplace / "samtune_studies" / "tiny" / "trials"

    class Breaking(Silent):
        def on_start(self, key: str, values: dict[str, Any], epochs_done: int) -> None:
            trials.rename(trials.with_name("away"))
            trials.write_text("in the way")

    config = study_config(("study: {", "study: {storage_wait: 0.0, "))
    with pytest.raises(EndedEarlyError, match=r"for 0 s: .* go on with `samtune resume tiny`"):
        run_study(config, listener=Breaking())
    trials.unlink()
    trials.with_name("away").rename(trials)
    assert [t.key for t in open_study("tiny").trials] == ["t0000"]


@pytest.mark.ray
def test_a_start_that_fails_has_not_taken_the_name(workplace: Path, local_ray: None) -> None:
    (workplace / "faults.yaml").write_text(STUDY)
    refused = _samtune("run", "faults.yaml", "study.resources={cpus: 64}")
    assert refused.returncode == 2
    assert "asks for 64 CPUs" in refused.stderr
    assert not (workplace / "samtune_studies" / "faults").exists()
    (workplace / "samtune_studies" / "faults").mkdir(parents=True)
    (workplace / "samtune_studies" / "faults" / "manifest.json").write_text("{}")
    taken = _samtune("run", "faults.yaml")
    assert "exists in" in taken.stderr
    assert taken.stdout == ""  # before the preview


@pytest.mark.ray
def test_an_unreachable_mlflow_stops_nothing_and_is_made_up_for(
    workplace: Path, local_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_file = STUDY.replace(DEEDS, '[""]')
    (workplace / "faults.yaml").write_text(study_file)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    ran = _samtune("run", "faults.yaml")
    assert ran.returncode == 0, ran.stderr
    assert "MLflow has not taken 4 epochs and the state of" in ran.stdout
    refused = _samtune("sync", "faults")
    assert refused.returncode == 2
    assert "MLflow at http://127.0.0.1:9" in refused.stderr
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    for expected in ("4 epochs sent", "0 epochs sent"):
        synced = _samtune("sync", "faults", "--plugin", "misfit_plugin")
        assert expected in synced.stdout, synced.stdout + synced.stderr
    assert len(_points("faults")["t0001"][1]) == 4


COUNTED = """
from pathlib import Path
from samtune import register_dataset
from samtune.data import load_dataset

@register_dataset("counted")
def counted(*, file: str):
    with open(file, "a") as reads:
        reads.write("read\\n")
    return load_dataset("digits", label_noise=0.4)
"""


@pytest.mark.ray
@pytest.mark.parametrize("searched", [False, pytest.param(True, marks=pytest.mark.chaos)])
def test_trials_share_one_data_set_unless_it_is_searched(
    workplace: Path, local_ray: None, study_text: str, searched: bool
) -> None:
    from samtune import run_study

    mine = workplace / "mine"  # the plugin is found beside the study file
    mine.mkdir()
    (mine / "counted_plugin.py").write_text(COUNTED)
    one, other = workplace / "one", workplace / "other"
    text = study_text.replace("{name: digits, label_noise: 0.4}", f"{{name: counted, file: {one}}}")
    text = text.replace("study: {", "study: {register_model: false, ").replace(
        "trials: 4", "trials: 2"
    )
    text = text.replace("epochs: 3", "epochs: 1")
    if searched:
        space = f"search_space:\n  dataset.file: {{choice: [{one}, {other}]}}\n"
        text = text[: text.index("search_space:")] + space + "study: {trials: 4, sampler: grid}\n"
    (mine / "tiny.yaml").write_text(f"plugins: [counted_plugin]\n{text}")
    study = run_study("mine/tiny.yaml", storage=workplace / "studies")
    assert study.best is not None
    if searched:
        assert len(study.trials) == 3
        assert one.exists()
        assert other.exists()
    else:
        assert len(study.trials) == 3
        assert one.read_text() == "read\n"
    with pytest.raises(SamtuneError, match="study 'tiny' exists"):
        run_study("mine/tiny.yaml", storage=workplace / "studies")


@pytest.mark.ray
def test_a_request_no_node_can_meet_is_refused_before_any_trial(
    workplace: Path, local_ray: None, study_config: Make
) -> None:
    from samtune import run_study

    greedy = study_config(("study: {", "study: {resources: {cpus: 1000}, "))
    with pytest.raises(SamtuneError, match="asks for 1000 CPUs") as error:
        run_study(greedy, storage=workplace / "studies")
    assert not isinstance(error.value, NoUsableTrialError)
    assert not (workplace / "studies" / "tiny").exists()
