"""Which nodes take trials as they come and go, what they are asked, and whose fault a loss is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from samtune.config.resources import ResourcesConfig
from samtune.errors import SamtuneError
from samtune.study.manifest import installed_versions
from samtune.tuning import nodes as nodes_module
from samtune.tuning.cluster import Node, Place
from samtune.tuning.lost import RETRIES, LostWorkers
from samtune.tuning.nodes import ANSWER_WITHIN_S, LOOK_EVERY_S, Nodes, Question


@dataclass
class Cluster:
    """Nodes by name, a clock, and what was asked and told."""

    cpus: dict[str, float]
    now: float = 0.0
    answers: dict[str, Future[list[str]]] = field(default_factory=dict)
    problems: dict[str, list[str] | None] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    looks: int = 0

    def look(self) -> list[Node]:
        self.looks += 1
        return [
            {"NodeID": name, "Alive": True, "Resources": {"CPU": cpus}, "NodeManagerAddress": name}
            for name, cpus in self.cpus.items()
        ]

    def ask(self, node: Node, place: Place) -> Future[list[str]]:
        name = node["NodeID"]
        assert name not in self.answers, "asked twice"
        answer = self.answers[name] = Future()
        found = self.problems.get(name, [])
        if found is not None:
            answer.set_result(found)
        return answer

    def nodes(self) -> Nodes:
        wanted = ResourcesConfig(cpus=2)
        return Nodes(wanted, self.look, self.ask, self.told.append, lambda: self.now)


@pytest.fixture(autouse=True)
def _sleep_is_the_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_module.time, "sleep", lambda _: None)


def _sleeping(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, then: Callable[[], Any]) -> None:
    """Lets time pass, and something happen, where the code would sleep."""

    def sleep(seconds: float) -> None:
        cluster.now += seconds
        then()

    monkeypatch.setattr(nodes_module.time, "sleep", sleep)


def test_a_node_that_joins_is_used_once_it_has_answered_and_one_that_leaves_no_more() -> None:
    cluster = Cluster({"a": 4.0})
    nodes = cluster.nodes()
    assert nodes.wait(0).bundle == {"CPU": 2.0, "GPU": 0.0}
    assert nodes.slots() == 2
    cluster.cpus["b"], cluster.problems["b"] = 7.0, None
    cluster.now += LOOK_EVERY_S
    assert nodes.slots() == 2
    assert nodes.avoided() == []  # what waits for a place may still get it there
    assert nodes.is_at_fault("b")  # but a worker that is lost there counts against nobody
    cluster.answers["b"].set_result([])
    assert nodes.slots() == 5
    assert nodes.avoided() == []
    del cluster.cpus["a"]
    cluster.now += LOOK_EVERY_S
    assert nodes.slots() == 3
    assert cluster.told == []


def test_ray_is_asked_for_its_nodes_no_more_than_every_other_second() -> None:
    cluster = Cluster({"a": 4.0})
    nodes = cluster.nodes()
    nodes.wait(0)
    for _ in range(1000):
        nodes.slots()
        nodes.avoided()
    assert cluster.looks == 1


def test_an_unfit_node_is_named_once_and_left_out() -> None:
    cluster = Cluster({"a": 4.0, "b": 4.0}, problems={"b": ["it is too old", "it is too slow"]})
    nodes = cluster.nodes()
    nodes.wait(0)
    assert nodes.slots() == 2
    assert nodes.avoided() == ["b"]
    assert cluster.told == ["left out is node b: it is too old; it is too slow"]
    assert nodes.is_at_fault("b")
    assert not nodes.is_at_fault("a")
    assert nodes.is_at_fault("gone")


def test_a_node_too_small_for_a_trial_is_not_even_asked() -> None:
    cluster = Cluster({"head": 0.0, "a": 2.0})
    nodes = cluster.nodes()
    nodes.wait(0)
    assert list(cluster.answers) == ["a"]
    assert nodes.avoided() == []


def test_the_first_trial_waits_for_all_answers_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster({"a": 2.0, "b": 2.0}, problems={"b": None})
    _sleeping(cluster, monkeypatch, lambda: None)
    nodes = cluster.nodes()
    nodes.wait(0)
    assert ANSWER_WITHIN_S <= cluster.now < ANSWER_WITHIN_S + 1
    assert nodes.slots() == 1
    assert cluster.told == ["left out is node b: it has not answered for 60 s"]
    cluster.answers["b"].set_result([])  # late, but well
    assert nodes.slots() == 2


def test_without_a_node_it_waits_and_says_so_each_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster({"head": 0.0})

    def join_after_150_s() -> None:
        if cluster.now >= 150:
            cluster.cpus["a"] = 2.0

    _sleeping(cluster, monkeypatch, join_after_150_s)
    assert cluster.nodes().wait(600).cpus == 2
    assert 150 <= cluster.now < 155
    assert len(cluster.told) == 3  # at 0, 60 and 120 s
    assert cluster.told[0].startswith("waiting for resources: study.resources asks for 2 CPUs")


def test_without_waiting_it_is_an_error_that_names_the_way_to_wait() -> None:
    with pytest.raises(SamtuneError, match=r"largest node has 0 CPUs.*--wait-for-resources 10m"):
        Cluster({"head": 0.0}).nodes().wait(0)
    with pytest.raises(SamtuneError, match=r"no node can take a trial: node a: it is too old"):
        Cluster({"a": 2.0}, problems={"a": ["it is too old"]}).nodes().wait(0)


def test_when_no_node_is_left_it_says_so_once() -> None:
    cluster = Cluster({"a": 2.0})
    nodes = cluster.nodes()
    nodes.wait(0)
    cluster.cpus.clear()
    for _ in range(3):
        cluster.now += LOOK_EVERY_S
        assert nodes.slots() == 0
    assert cluster.told == ["no node is left that holds a trial: waiting for one"]


@pytest.fixture
def question(tmp_path: Path) -> Question:
    """One to which this machine has nothing to object."""
    probe = tmp_path / "study" / ".tune" / "nodes-1"
    probe.mkdir(parents=True)
    (probe / "driver").write_text("word")
    return Question("head", installed_versions(), [], None, probe, "word", [str(tmp_path)])


def test_a_node_like_the_drivers_has_no_problems_and_is_seen(question: Question) -> None:
    assert question.unseen("n1") == [f"what it writes to {question.probe} is not seen here"]
    assert question.problems("n1") == []
    assert question.unseen("n1") == []


def test_each_thing_that_a_node_lacks_is_named(question: Question, tmp_path: Path) -> None:
    other = replace(
        question,
        versions={**question.versions, "torch": "1.0"},
        plugins=["no_such_plugin"],
        probe=tmp_path / "elsewhere" / ".tune" / "nodes-1",
        paths=[str(tmp_path / "images")],
    )
    versions, storage, data, plugins = other.problems("n1")
    assert versions == f"it has torch {question.versions['torch']}, and the driver 1.0"
    assert storage == f"it does not see the study in {tmp_path / 'elsewhere'}"
    assert data == f"it does not have the data set's {tmp_path / 'images'}"
    assert plugins.startswith("plugin 'no_such_plugin' cannot be imported")


def test_gpus_that_ray_has_and_torch_does_not_find_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert nodes_module._gpu_problems(0) == []
    (problem,) = nodes_module._gpu_problems(2)
    assert problem.startswith("Ray has 2 GPUs there, and torch ")


def test_a_storage_with_another_drivers_files_is_not_the_same(question: Question) -> None:
    (question.probe / "driver").write_text("another word")
    assert len(question.problems("n1")) == 1


def test_workers_lost_with_their_nodes_never_count() -> None:
    gone: set[str] = set()
    lost = LostWorkers(gone.__contains__)
    for number in range(50):
        gone.add(f"n{number}")
        lost.note("t0001", f"n{number}")
        assert not lost.too_often("t0001")
    for _ in range(RETRIES):
        lost.note("t0001", "well")
        assert not lost.too_often("t0001")
    lost.note("t0002", "well")
    lost.note("t0001", "")
    assert lost.too_often("t0001")
    assert not lost.too_often("t0002")


def test_a_node_whose_death_is_known_late_excuses_what_was_lost_before() -> None:
    gone: set[str] = set()
    lost = LostWorkers(gone.__contains__)
    for _ in range(RETRIES + 1):
        lost.note("t0001", "n1")
    assert lost.too_often("t0001")
    gone.add("n1")
    assert not lost.too_often("t0001")
