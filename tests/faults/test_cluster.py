"""Machines of a Ray cluster that are lost, late, or lack what trials need (F20 to F24)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import samtune
from samtune.data import load_dataset
from samtune.study import Study
from samtune.study.trial_folder import TrialFolder
from samtune.study.trial_run import run_trial
from samtune.tuning.cluster import usable_cpus
from tests.faults.harness import STUDY, Workplace
from tests.faults.oracle import PRINTED, check_ended, check_files, check_mlflow

# In a process of its own: this one may have a Ray already, with a token. A node that joins without
# a path has an empty folder or file there, in a mount namespace of its own.
CLUSTER = """
import ctypes, os, subprocess, sys, tempfile, time
from ray.cluster_utils import Cluster

libc = ctypes.CDLL(None, use_errno=True)
everything = os.open("/proc/self/ns/mnt", os.O_RDONLY)
nodes = {}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})

def hide(path):
    assert not libc.unshare(0x00020000), os.strerror(ctypes.get_errno())
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    empty = tempfile.mkdtemp() if os.path.isdir(path) else "/dev/null"
    subprocess.run(["mount", "--bind", "-r", empty, path], check=True)

print("done", cluster.address, flush=True)
for line in sys.stdin:
    match line.split():
        case ["join", address, *hidden]:
            for path in hidden:
                hide(path)
            nodes[address] = cluster.add_node(num_cpus=1, node_ip_address=address)
            libc.setns(everything, 0)
        case ["use", address]:
            import ray
            from ray._private.state import available_resources_per_node
            ray.is_initialized() or cluster.connect()
            while available_resources_per_node()[nodes[address].node_id].get("CPU"):
                time.sleep(0.1)
        case ["lose", "head"]:
            cluster.head_node.kill_gcs_server()
        case ["lose", address]:
            cluster.remove_node(nodes.pop(address), allow_graceful=False)
        case ["end"]:
            break
    print("done", line, flush=True)
cluster.shutdown()
"""
A, B, C, D, E = (f"127.0.0.{number}" for number in range(11, 16))
LATE_WITHIN_S = 30.0


class Nodes:
    """A head without CPUs, and nodes with one, on this machine."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = self._answer()

    def join(self, address: str, without: Path | None = None) -> None:
        self._do(f"join {address} {without or ''}")

    def lose(self, address: str) -> None:
        """As if its power had failed."""
        self._do(f"lose {address}")

    def wait_for_a_trial(self, address: str) -> None:
        self._do(f"use {address}")

    def end(self) -> None:
        self._process.communicate("end\n", timeout=120)

    def _do(self, command: str) -> None:
        print(command, file=self._process.stdin, flush=True)
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        done = (line for line in self._process.stdout if line.startswith("done"))
        answer = next(done, None)
        assert answer, "the cluster's own process has ended"
        return answer.split()[1]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    monkeypatch.setenv("HOME", str(tmp_path))  # no token, for the cluster and for who joins it
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    nodes = Nodes()
    yield nodes
    nodes.end()


def _read_until(place: Workplace, process: subprocess.Popen[str], sign: str, times: int = 1) -> str:
    """The line in which the sign is found for the last of so many times."""
    assert process.stdout is not None
    for line in process.stdout:
        place.printed += line
        times -= bool(re.search(sign, line))
        if not times:
            return line
    raise AssertionError(place.printed)


def _begun(place: Workplace, address: str) -> subprocess.Popen[str]:
    """A run on the cluster that has printed three epochs."""
    process = place.start("run", "killed.yaml", "--address", address)
    _read_until(place, process, PRINTED.pattern, 3)
    return process


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    small = STUDY.replace("trials: 7", "trials: 2").replace(f"cpus: {usable_cpus()}", "cpus: 1")
    return Workplace(tmp_path, small)


@pytest.mark.chaos
@pytest.mark.ray
def test_a_lost_node_takes_no_epoch_with_it_and_a_new_one_goes_on(
    place: Workplace, cluster: Nodes
) -> None:
    cluster.join(A)
    process = _begun(place, cluster.address)
    cluster.lose(A)  # now there is none
    cluster.join(B)
    assert place.finish(process) == 0, place.printed
    assert "lost its worker and goes on in another" in place.printed
    study = check_files(place.storage, "killed", place.printed)
    check_ended(study)
    check_mlflow(study, place.mlflow)
    assert {e.attempt for t in study.trials for e in t.epochs} == {1, 2}
    place.check_nothing_left(killed=False)


@pytest.mark.chaos
@pytest.mark.ray
def test_a_study_whose_head_is_lost_goes_on_without_the_cluster(
    place: Workplace, cluster: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    cluster.join(A)
    process = _begun(place, cluster.address)
    cluster.lose("head")
    assert place.finish(process) == 1  # by Ray, in words of its own
    check_files(place.storage, "killed", place.printed)
    assert place.run("resume", "killed", "--plugin", "slow_plugin") == 0, place.printed
    study = check_files(place.storage, "killed", place.printed)
    check_ended(study)
    check_mlflow(study, place.mlflow)


def _undisturbed(study: Study, folder: Path) -> dict[str, list[dict[str, float]]]:
    """What the trials of a study come to in one process, without Ray."""
    curves = {}
    for trial in study.trials:
        record = trial.folder.record()
        assert record is not None
        alone = TrialFolder(folder / trial.key)
        alone.hand_out(record, 1)
        dataset = record.config.dataset
        data = load_dataset(dataset.name, **dataset.params)
        steps = run_trial(alone, 1, device=torch.device("cpu"), data=data)
        curves[trial.key] = [progress.metrics for progress in steps if progress.metrics]
    return curves


needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0
    or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0,
    reason="only root can give a node other files than the driver",
)


@needs_namespaces
@pytest.mark.chaos
@pytest.mark.ray
def test_a_trial_that_loses_its_node_five_times_still_finishes(
    place: Workplace, cluster: Nodes
) -> None:
    """The first node comes after the study, and none has its plugin but by the driver."""
    plugin = place.folder / "slow_plugin.py"
    study = ("study.trials=1", "study.baseline=false", "training.epochs=30")
    where = ("--address", cluster.address, "--wait-for-resources", "10m")
    process = place.start("run", "killed.yaml", *study, *where)
    _read_until(place, process, "^waiting for resources: .* largest node has 0 CPUs")
    for number in range(20, 25):
        cluster.join(f"127.0.0.{number}", without=plugin)
        _read_until(place, process, PRINTED.pattern)
        cluster.lose(f"127.0.0.{number}")
        _read_until(place, process, "lost its worker and goes on in another")
    cluster.join(A, without=plugin)
    assert place.finish(process) == 0, place.printed
    assert place.printed.count("lost its worker and goes on in another") == 5
    check_ended(check_files(place.storage, "killed", place.printed))
    place.check_nothing_left(killed=False)


@needs_namespaces
@pytest.mark.chaos
@pytest.mark.ray
def test_a_cluster_that_changes_all_the_time_gives_the_study_of_one_machine(
    place: Workplace, cluster: Nodes
) -> None:
    """The bundled study, small: nodes lack the storage or samtune, one dies, one is late."""
    bundled = Path(__file__).parents[2] / "search_spaces" / "wrn_rho.yaml"
    (place.folder / "wrn.yaml").write_text(bundled.read_text())
    small = (
        "name=wrn",
        "study.trials=7",
        "study.sampler=random",
        "study.scheduler={name: none}",  # what these do depends on the order of events
        "training.epochs=4",
        "training.precision=fp32",
        "search_space.model.width_factor={choice: [1]}",
        "search_space.model.depth={choice: [10]}",
    )
    place.storage.mkdir()
    cluster.join(A)
    cluster.join(B)
    cluster.join(C, without=place.storage)
    cluster.join(E, without=Path(samtune.__file__).parent)
    process = place.start("run", "wrn.yaml", *small, "--address", cluster.address)
    for _ in range(2):
        _read_until(place, process, "^left out is node ")
    storage, package = sorted(re.findall("^left out is node (.*)", place.printed, re.MULTILINE))
    assert storage.startswith(f"{C} ")
    assert f": it does not see the study in {place.storage / 'wrn'}" in storage
    assert package.startswith(f"{E} ")
    assert "it cannot be asked: ModuleNotFoundError: No module named 'samtune" in package
    _read_until(place, process, PRINTED.pattern, 3)

    cluster.lose(A)
    _read_until(place, process, "lost its worker and goes on in another")
    cluster.join(D)
    joined = time.monotonic()
    cluster.wait_for_a_trial(D)
    took_s = time.monotonic() - joined
    print(f"the late node had a trial after {took_s:.1f} s")
    assert took_s < LATE_WITHIN_S
    _read_until(place, process, PRINTED.pattern, 2)

    process.send_signal(signal.SIGKILL)
    place.finish(process)
    assert place.run("resume", "wrn", "--address", cluster.address) == 0, place.printed
    for unfit in (C, E):
        assert place.printed.count(f"left out is node {unfit} ") == 2  # by either session
    study = check_files(place.storage, "wrn", place.printed)
    check_ended(study)
    check_mlflow(study, place.mlflow)
    curves = {t.key: [dict(e.metrics) for e in t.epochs] for t in study.trials}
    assert curves == _undisturbed(study, place.folder / "alone")
