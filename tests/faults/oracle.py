"""What must hold of a study after any ending, from its files and from MLflow alone: O1 to O8.

| | |
|---|---|
| O1 | each trial's journal has the epochs 1 to n, without a gap and without two accounts of one |
| O2 | every epoch that was printed is in the journal, and once in MLflow |
| O3 | the weights that are kept are whole, the best epoch's, and those of the best trials |
| O4 | no run in MLflow is left RUNNING |
| O5 | every trial has ended, and Optuna's states add up to the trials |
| O6 | the numbers are those of a study that nothing happened to, bit for bit |
| O7 | exit code and last words are as they should be |
| O8 | no process, no shared memory and no temporary file is left |
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from samtune.files import TEMPORARY
from samtune.study import Study, open_study
from samtune.study.journal import Journal
from samtune.study.trial_folder import BASELINE_KEY, trial_number
from samtune.study.weights import load_trained

SHARED_MEMORY = "/dev/shm"
MARK = "SAMTUNE_TESTED_AS"  # in the environment of a study's processes, to find them again
RAYS_OWN = ("ray::DashboardAgent", "ray::RuntimeEnvAgent", "/ray/")
PRINTED = re.compile(r"^(t\d+)(?: \(baseline\))? epoch (\d+)/", re.MULTILINE)


@dataclass(frozen=True)
class Account:
    """All of a trial that does not depend on when it was trained."""

    values: dict[str, object]
    state: str
    metrics: list[dict[str, float]]


def accounts(study: Study) -> dict[str, Account]:
    """What each trial of a study came to; two studies to which the same happened are equal."""
    return {
        t.key: Account(t.values, t.state, [dict(e.metrics) for e in t.epochs]) for t in study.trials
    }


def check_files(storage: Path | str, name: str, printed: str) -> Study:
    """O1, O2's first half, and O3."""
    study = open_study(name, storage)
    journaled = set()
    for trial in study.trials:
        lines = [entry.epoch for entry in Journal(trial.folder.journal).lines()]
        assert lines == list(range(1, len(lines) + 1)), f"O1: {trial.key} has {lines}"
        journaled |= {(trial.key, entry.epoch) for entry in trial.epochs}
        if trial.epochs and trial.select == "best" and not trial.folder.let_go():
            kept = load_trained(trial)
            best = trial.best_epoch
            assert best is not None
            assert kept.epoch == best.epoch, f"O3: {trial.key} keeps epoch {kept.epoch}"
            assert kept.evaluate()[trial.metric] == best.metrics[trial.metric], f"O3: {trial.key}"
    check_kept(study)
    shown = [(key, int(epoch)) for key, epoch in PRINTED.findall(printed)]
    assert len(shown) == len(set(shown)), "O2: an epoch was printed twice"
    assert set(shown) <= journaled, "O2: a printed epoch is not in the journal"
    return study


def check_kept(study: Study) -> None:
    """O3's second half: nothing was let go that is among the best, or may go on."""
    ranked = [t for t in study.ranking if not (t.may_go_on or t.is_baseline)]
    kept = {t.key for t in ranked[: study.config.keep_weights]} | {BASELINE_KEY}
    for trial in study.trials:
        if trial.key in kept or trial.may_go_on:
            assert trial.folder.let_go() is None, f"O3: {trial.key} was let go"


def check_ended(study: Study) -> None:
    """O5."""
    from samtune.tuning.run import Silent
    from samtune.tuning.search import Search

    assert study.left == 0, "O5: trials are left"
    assert [trial_number(t.key) for t in study.trials if not t.is_baseline] == list(
        range(1, study.config.wanted_trials + 1)
    )
    rebuilt = Search(study.folder, study.config, study.session, Silent())
    states = [trial.state.name for trial in rebuilt.sampler.study.trials]
    assert len(states) == study.config.wanted_trials
    assert set(states) <= {"COMPLETE", "PRUNED", "FAIL"}, "O5"


def check_mlflow(study: Study, uri: str) -> None:
    """O2's second half, and O4."""
    import mlflow

    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(study.name)
    assert experiment is not None
    runs = {}
    for run in client.search_runs([experiment.experiment_id], max_results=1000):
        assert run.info.status != "RUNNING", f"O4: {run.data.tags}"
        assert run.data.tags["samtune.trial"] not in runs, "O2: a trial has two runs"
        runs[run.data.tags["samtune.trial"]] = run
    assert runs.keys() == {"study", *(t.key for t in study.trials)}, "O2"
    for trial in study.trials:
        history = client.get_metric_history(runs[trial.key].info.run_id, trial.metric)
        points = sorted((point.step, point.value) for point in history)
        journaled = [(entry.epoch, entry.metrics[trial.metric]) for entry in trial.epochs]
        assert points == journaled, f"O2: {trial.key}"
        assert runs[trial.key].data.tags["samtune.state"] == trial.state


def check_nothing_left(
    mark: str, storage: Path, memory_before: set[str], *, killed: bool, within_s: float = 45.0
) -> None:
    """O8: what was begun under the mark is gone, with its threads and file handles.

    Args:
        storage: where its studies are; a session that was not killed leaves nothing temporary.
        memory_before: what `shared_memory` gave before the first process was started.
        killed: Ray's own agents outlive a driver that was killed by a minute; they hold no trial.
    """
    deadline = time.monotonic() + within_s
    while (left := _processes(mark, killed)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left, f"O8: {left}"
    while (blocks := _unheld(memory_before)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not blocks, f"O8: {blocks} in {SHARED_MEMORY}, which nobody holds"
    if not killed:
        files = [p for what in (f"{TEMPORARY}*", ".tune") for p in storage.rglob(what)]
        assert not files, f"O8: {files}"


def shared_memory() -> set[str]:
    """The names of the blocks of shared memory on this machine."""
    return {entry.name for entry in os.scandir(SHARED_MEMORY) if entry.is_file()}


def _unheld(before: set[str]) -> set[str]:
    """New blocks that no living process has open or mapped: what is held is somebody's work."""
    blocks = shared_memory() - before
    held = set()
    for process in Path("/proc").glob("[0-9]*") if blocks else ():
        text = ""
        with contextlib.suppress(OSError):
            text = (process / "maps").read_text()
            for handle in list((process / "fd").iterdir()):
                with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                    text += f" {os.readlink(handle)}"
        held |= {name for name in blocks if f"{SHARED_MEMORY}/{name}" in text}
    return (blocks - held) & shared_memory()


def _processes(mark: str, killed: bool) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            if f"{MARK}={mark}".encode() not in environment or int(process.name) == os.getpid():
                continue
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z" and not (killed and any(name in command for name in RAYS_OWN)):
            found.append(f"{process.name} {command[:120]}")
    return found
