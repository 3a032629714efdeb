"""Whole studies on a local Ray: the main job, faults, kills and signals, and what MLflow has."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from samtune.config.schema import ResourcesConfig, StudyConfig
from samtune.errors import NoUsableTrialError, SamtuneError
from samtune.study import Study, open_study
from samtune.study.journal import Journal
from samtune.tuning.cluster import find_slots

Make = Callable[..., StudyConfig]


def _nodes(*resources: dict[str, float]) -> list[dict[str, object]]:
    return [{"Alive": True, "Resources": r} for r in resources]


@pytest.mark.parametrize(
    ("nodes", "wanted", "trials", "gpus"),
    [
        (_nodes({"CPU": 8.0}), {"cpus": 2}, 4, 0.0),
        (_nodes({"CPU": 8.0, "GPU": 2.0}), {"cpus": 1}, 2, 1.0),
        (_nodes({"CPU": 8.0, "GPU": 1.0}), {"cpus": 1, "gpus": 0.25}, 4, 0.25),
        (_nodes({"CPU": 4.0}, {"CPU": 3.0}), {"cpus": 2}, 3, 0.0),
        (_nodes({"CPU": 8.0, "GPU": 2.0}), {"cpus": 1, "gpus": 0}, 8, 0.0),
    ],
)
def test_slots_are_what_fits_on_each_node(
    nodes: list[dict[str, object]], wanted: dict[str, float], trials: int, gpus: float
) -> None:
    slots = find_slots(nodes, ResourcesConfig.model_validate(wanted))
    assert (slots.trials, slots.gpus) == (trials, gpus)


def test_what_fits_nowhere_is_refused_with_the_numbers() -> None:
    with pytest.raises(SamtuneError, match=r"64 CPUs and 1 GPUs .* largest node has 4 CPUs and 0"):
        find_slots(_nodes({"CPU": 4.0}), ResourcesConfig(cpus=64, gpus=1.0))


PLUGIN = '''
"""A model that misbehaves as its parameter says, once for each marker file."""
import math, os, signal, time
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
        if self.passes == 5:
            if self.deed == "raise":
                raise ValueError("this model cannot do five")
            if self.deed == "nan":
                return logits * math.nan
            if self.deed == "kill" and not Path(self.marker).exists():
                Path(self.marker).touch()
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
  model.deed: {choice: ["", raise, nan, kill]}
study: {trials: 4, sampler: grid, scheduler: none, baseline: false}
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the plugin in it, as the current one."""
    (tmp_path / "misfit_plugin.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def _samtune(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "samtune", *arguments]
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        command, capture_output=True, text=True, timeout=200, check=False, **options
    )


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
def test_faults_of_a_trial_are_its_own_and_a_lost_worker_is_replaced(workplace: Path) -> None:
    (workplace / "faults.yaml").write_text(
        STUDY.replace("{name: misfit}", f"{{name: misfit, marker: {workplace / 'killed'}}}")
    )
    ran = _samtune("run", "faults.yaml")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    study = _holds("faults", ran.stdout)
    by_deed = {t.values["model.deed"]: t for t in study.trials}
    states = {deed: t.state for deed, t in by_deed.items()}
    assert states == {"": "finished", "raise": "failed", "nan": "diverged", "kill": "finished"}
    assert [len(by_deed[d].epochs) for d in ("", "raise", "nan", "kill")] == [4, 2, 2, 4]
    assert (workplace / "killed").exists()
    # The killed trial went on from its last epoch, and its numbers are those of the undisturbed.
    curves = [[e.metrics["val_loss"] for e in by_deed[d].epochs] for d in ("", "kill")]
    assert curves[0] == curves[1]
    assert {e.attempt for e in by_deed["kill"].epochs} == {1, 2}
    assert "ValueError: this model cannot do five" in by_deed["raise"].folder.log.read_text()
    assert "this model cannot do five" in ran.stdout
    assert "lost its worker and goes on in another" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr

    assert not (workplace / "samtune_studies/faults/.tune").exists()
    points = _points("faults")
    for trial in study.trials:
        state, curve = points[trial.key]
        assert state == trial.state
        assert curve == [(e.epoch, e.metrics["val_accuracy"]) for e in trial.epochs]

    done = _samtune("resume", "faults", "--plugin", "misfit_plugin")
    assert done.returncode == 0
    assert "There is nothing to do" in done.stdout


def _start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "samtune", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


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
    'model.deed: {choice: ["", raise, nan, kill]}', "optimizer.lr: {float: [0.01, 1.0]}"
)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_driver_that_is_ended_is_resumed_without_loss(
    workplace: Path, number: signal.Signals, code: int
) -> None:
    study_file = SLOW.replace("sampler: grid", "sampler: tpe").replace("trials: 4", "trials: 6")
    (workplace / "faults.yaml").write_text(study_file)
    process = _start("run", "faults.yaml")
    printed = _read_until(process, 6)
    signalled = time.monotonic()
    process.send_signal(number)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == code, printed + rest
    if number != signal.SIGKILL:
        assert time.monotonic() - signalled < 20
        assert "samtune resume faults" in rest
    assert "Traceback" not in rest
    study = _holds("faults", printed + rest)
    assert study.state == "interrupted"
    if number == signal.SIGTERM:
        return  # what is left behind is as after SIGINT

    resumed = _samtune("resume", "faults", "--plugin", "misfit_plugin")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    study = _holds("faults", printed + rest + resumed.stdout)
    assert study.left == 0
    assert [t.state for t in study.trials] == ["finished"] * 6
    assert all(len(t.epochs) == 4 for t in study.trials)
    points = _points("faults")
    assert {key: len(curve) for key, (_, curve) in points.items() if key != "study"} == {
        t.key: 4 for t in study.trials
    }

    if number == signal.SIGINT:
        before = [t.values for t in study.trials]
        more = _samtune("resume", "faults", "--trials", "+2", "--plugin", "misfit_plugin")
        assert more.returncode == 0, more.stdout + more.stderr
        after = [t.values for t in open_study("faults").trials]
        assert after[:6] == before
        assert len({json.dumps(values) for values in after}) == 8


@pytest.mark.ray
def test_a_study_in_which_everything_fails_says_so_and_exits_1(workplace: Path) -> None:
    (workplace / "faults.yaml").write_text(
        STUDY.replace('["", raise, nan, kill]', "[raise]").replace(
            "search_space:", "search_space:\n  optimizer.lr: {choice: [0.1, 0.2, 0.3]}"
        )
    )
    ran = _samtune("run", "faults.yaml", "study.max_failed_trials=2")
    assert ran.returncode == 1
    assert "trials failed, so the study was ended" in ran.stderr
    assert "ValueError: this model cannot do five" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.ray
def test_an_unreachable_mlflow_stops_nothing_and_is_made_up_for(workplace: Path) -> None:
    study_file = STUDY.replace('["", raise, nan, kill]', '[""]')
    (workplace / "faults.yaml").write_text(study_file)
    dead = {**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    ran = _samtune("run", "faults.yaml", env=dead)
    assert ran.returncode == 0, ran.stderr
    assert "MLflow has not taken 4 epochs and the state of" in ran.stdout
    refused = _samtune("sync", "faults", env=dead)
    assert refused.returncode == 2
    assert "MLflow at http://127.0.0.1:9" in refused.stderr
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
@pytest.mark.parametrize("searched", [False, True])
def test_trials_share_one_data_set_unless_it_is_searched(
    workplace: Path, study_text: str, searched: bool
) -> None:
    from samtune import run_study

    (workplace / "counted_plugin.py").write_text(COUNTED)
    one, other = workplace / "one", workplace / "other"
    text = study_text.replace("{name: digits, label_noise: 0.4}", f"{{name: counted, file: {one}}}")
    if searched:
        space = f"search_space:\n  dataset.file: {{choice: [{one}, {other}]}}\n"
        text = text[: text.index("search_space:")] + space + "study: {trials: 4, sampler: grid}\n"
    (workplace / "tiny.yaml").write_text(f"plugins: [counted_plugin]\n{text}")
    study = run_study("tiny.yaml", storage=workplace / "studies")
    assert study.best is not None
    if searched:
        assert len(study.trials) == 3
        assert one.exists()
        assert other.exists()
    else:
        assert len(study.trials) == 5
        assert one.read_text() == "read\n"
    with pytest.raises(SamtuneError, match="study 'tiny' exists"):
        run_study("tiny.yaml", storage=workplace / "studies")


@pytest.mark.ray
def test_a_request_no_node_can_meet_is_refused_before_any_trial(
    workplace: Path, study_config: Make
) -> None:
    from samtune import run_study

    greedy = study_config(("study: {", "study: {resources: {cpus: 1000}, "))
    with pytest.raises(SamtuneError, match="asks for 1000 CPUs") as error:
        run_study(greedy, storage=workplace / "studies")
    assert not isinstance(error.value, NoUsableTrialError)
    assert open_study("tiny", workplace / "studies").trials == []
