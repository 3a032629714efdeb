"""Machines of a Ray cluster that are lost, and others that come later (F20 to F23)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from samtune.tuning.cluster import usable_cpus
from tests.faults.harness import STUDY, Workplace
from tests.faults.oracle import PRINTED, check_ended, check_files, check_mlflow

# In a process of its own: this one may have a Ray already, with a token.
CLUSTER = """
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
node = cluster.add_node(num_cpus=1)
print("address", cluster.address, flush=True)
while (command := input()) != "end":
    if command == "lose":
        cluster.remove_node(node, allow_graceful=False)
    elif command == "lose the head":
        cluster.head_node.kill_gcs_server()
    elif command == "join":
        node = cluster.add_node(num_cpus=1)
    print("done", command.split()[0], flush=True)
cluster.shutdown()
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """A head without CPUs and a node with one; what is given to it, it does.

    Its first answer, to nothing, is its address.
    """
    monkeypatch.setenv("HOME", str(tmp_path))  # no token, for the cluster and for who joins it
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def tell(command: str) -> str:
        if command:
            print(command, file=process.stdin, flush=True)
        answers = ("address ", "done ")
        return next(line for line in process.stdout if line.startswith(answers)).split()[1]

    yield tell
    process.communicate("end\n", timeout=60)


def _begun(place: Workplace, address: str) -> subprocess.Popen[str]:
    """A run on the cluster that has printed three epochs."""
    process = place.start("run", "killed.yaml", "--address", address)
    assert process.stdout is not None
    epochs = 0
    while epochs < 3:
        place.printed += (line := process.stdout.readline())
        assert line, place.printed
        epochs += bool(PRINTED.match(line))
    return process


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    small = STUDY.replace("trials: 7", "trials: 2").replace(f"cpus: {usable_cpus()}", "cpus: 1")
    return Workplace(tmp_path, small)


@pytest.mark.chaos
@pytest.mark.ray
def test_a_lost_node_takes_no_epoch_with_it_and_a_new_one_goes_on(
    place: Workplace, cluster: Callable[[str], str]
) -> None:
    process = _begun(place, cluster(""))
    cluster("lose")  # now there is none
    cluster("join")
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
    place: Workplace, cluster: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
    process = _begun(place, cluster(""))
    cluster("lose the head")
    assert place.finish(process) == 1  # by Ray, in words of its own
    check_files(place.storage, "killed", place.printed)
    assert place.run("resume", "killed", "--plugin", "slow_plugin") == 0, place.printed
    study = check_files(place.storage, "killed", place.printed)
    check_ended(study)
    check_mlflow(study, place.mlflow)
