"""The nodes of a cluster: which of them take trials, as they come and go.

A node that joins is asked, on the node itself, whether it has what trials need. Until it has
answered well no trial is placed on it. The driver's own node answers by being where it is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samtune.config.resources import ResourcesConfig
from samtune.errors import SamtuneError
from samtune.registry import load_plugins
from samtune.study.manifest import installed_versions
from samtune.study.storage import storage_path
from samtune.tuning.cluster import Node, Place, place_of, too_small
from samtune.working_copy import current, is_copy, put

LOOK_EVERY_S = 2.0
ANSWER_WITHIN_S = 60.0  # a worker's start and imports, from a network storage that is cold
TELL_EVERY_S = 60.0
OF_A_NODE = ("samtune", "python", "torch", "ray")


@dataclass(frozen=True)
class Question:
    """What a node is asked for.

    Attributes:
        driver: the driver's own node, which is not asked.
        probe: a folder in the study, where both sides leave a file for the other; its address,
            where that is in a bucket.
        token: what these files hold.
        paths: files and folders of the data set that each worker reads itself.
    """

    driver: str
    versions: dict[str, str]
    plugins: list[str]
    plugin_folder: Path | None
    probe: str | Path
    token: str
    paths: list[str]

    def problems(self, node: str) -> list[str]:
        """What is wrong on the node that this runs on, each in a clause."""
        return [*self._versions(), *self._storage(node), *self._data(), *self._plugins()]

    def unseen(self, node: str) -> list[str]:
        """What the driver does not see of a node that found nothing wrong."""
        return [] if self._holds(node) else [f"what it writes to {self.probe} is not seen here"]

    def _versions(self) -> list[str]:
        here = installed_versions()
        return [
            f"it has {name} {here[name]}, and the driver {self.versions[name]}"
            for name in OF_A_NODE
            if here[name] != self.versions[name]
        ]

    def _storage(self, node: str) -> list[str]:
        if not self._holds("driver"):
            return [f"it does not see the study in {self._study}"]
        try:
            self.leave(node)
        except OSError as error:
            return [f"it cannot write to {self._study}: {error.strerror or error}"]
        return []

    @property
    def _study(self) -> str:
        return str(self.probe).rpartition("/.tune/")[0]

    def leave(self, name: str) -> None:
        """Writes the file of one side."""
        path = storage_path(self.probe) / name
        if is_copy(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            put(path, self.token.encode())
        path.write_text(self.token)

    def _holds(self, name: str) -> bool:
        try:
            return current(storage_path(self.probe) / name).read_text() == self.token
        except (OSError, SamtuneError):
            return False

    def _data(self) -> list[str]:
        gone = [path for path in self.paths if not os.path.exists(path)]
        return [f"it does not have the data set's {path}" for path in gone]

    def _plugins(self) -> list[str]:
        try:
            load_plugins(self.plugins, self.plugin_folder)
        except SamtuneError as error:
            return [str(error)]
        return []


def ask(ray: Any, question: Question, node: Node, place: Place) -> Future[list[str]]:
    """Begins to ask a node; the answer is what is wrong with it."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node_id, gpus = node["NodeID"], int(node["Resources"].get("GPU", 0)) if place.gpus else 0
    answer: Future[list[str]] = Future()
    if node_id == question.driver:
        answer.set_result(_gpu_problems(gpus))
        return answer

    def heard(told: Future[list[str]]) -> None:
        if error := told.exception():
            answer.set_result([f"it cannot be asked: {_cause(error)}"])
        else:
            answer.set_result(told.result() or question.unseen(node_id))

    # A process of its own, so that nothing it imports stays in memory, nor a GPU with it.
    task = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(_problems_on_node)
    pinned = task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False))
    pinned.remote(question, node_id, gpus).future().add_done_callback(heard)
    return answer


def _problems_on_node(question: Question, node: str, gpus: int) -> list[str]:
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # Ray hides all of them from what asks for none
    return [*question.problems(node), *_gpu_problems(gpus)]


def _gpu_problems(promised: int) -> list[str]:
    if not promised:
        return []
    import torch

    if torch.cuda.is_available():
        return []
    return [f"Ray has {promised} GPUs there, and torch {torch.__version__} finds none"]


def _cause(error: BaseException) -> str:
    """The last line of what Ray tells, which is the error itself."""
    lines = [line.strip() for line in str(error).splitlines() if "Error" in line]
    return (lines or [type(error).__name__])[-1][:300]


class Nodes:
    """Where trials can go.

    Args:
        look: gives all nodes, as `ray.nodes()` does.
        ask: begins to ask a node; nothing is a good answer.
        tell: takes a sentence for people.
    """

    def __init__(
        self,
        wanted: ResourcesConfig,
        look: Callable[[], list[Node]],
        ask: Callable[[Node, Place], Future[list[str]]],
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wanted = wanted
        self._look = look
        self._ask = ask
        self._tell = tell
        self._clock = clock
        self._place: Place | None = None
        self._alive: dict[str, Node] = {}
        self._asked: dict[str, tuple[Future[list[str]], float]] = {}
        self._unfit: dict[str, str] = {}
        self._looked_at = float("-inf")
        self._said_that_none_is_left = False

    def wait(self, seconds: float) -> Place:
        """What a trial occupies, once there is a node for one.

        Raises:
            SamtuneError: there is none after so many seconds.
        """
        deadline, told_at = self._clock() + seconds, float("-inf")
        while True:
            nodes = self._refresh()
            place = place_of(self._wanted, nodes)
            self._ask_new(place)
            if any(self._verdict(node_id) is None for node_id in self._asked):
                time.sleep(0.05)
                continue
            if self._count(place):
                self._place = place
                return place
            why = too_small(place, nodes)
            if self._unfit:
                why = f"no node can take a trial: {'; '.join(self._unfit.values())}"
            if self._clock() >= deadline:
                raise SamtuneError(
                    f"{why}. Ask for less, name a cluster with --address, or wait for nodes with "
                    "--wait-for-resources 10m."
                )
            if self._clock() - told_at >= TELL_EVERY_S:
                told_at = self._clock()
                self._tell(f"waiting for resources: {why}")
            time.sleep(1.0)

    def slots(self) -> int:
        """How many trials the nodes hold, all of them free."""
        place = self._seen_lately()
        count = self._count(place)
        if not count and not self._said_that_none_is_left:
            self._tell("no node is left that holds a trial: waiting for one")
        self._said_that_none_is_left = not count
        return count

    def avoided(self) -> list[str]:
        """The nodes to which no trial may go.

        Not those that have not answered: Ray keeps to this list for as long as a trial waits for a
        place, and such a node may be the only one that there will be. A worker asks its own.
        """
        self._seen_lately()
        return sorted(node_id for node_id in self._alive if self._verdict(node_id))

    def is_at_fault(self, node: str) -> bool:
        """Whether what was lost on this node was lost with it, or because of what it lacks.

        Args:
            node: its id, or its address where no id is known.
        """
        self._refresh()
        by_address = {n.get("NodeManagerAddress"): node_id for node_id, n in self._alive.items()}
        node_id = by_address.get(node, node)
        return node_id not in self._alive or self._verdict(node_id) != ""

    def _seen_lately(self) -> Place:
        assert self._place is not None  # `wait` has found one
        if self._clock() - self._looked_at >= LOOK_EVERY_S:
            self._refresh()
            self._ask_new(self._place)
        return self._place

    def _refresh(self) -> list[Node]:
        nodes = [node for node in self._look() if node["Alive"]]
        self._looked_at = self._clock()
        self._alive = {node["NodeID"]: node for node in nodes}
        for gone in [node_id for node_id in self._asked if node_id not in self._alive]:
            del self._asked[gone]
            self._unfit.pop(gone, None)
        return nodes

    def _ask_new(self, place: Place) -> None:
        for node_id, node in self._alive.items():
            if node_id not in self._asked and place.fits(node["Resources"]):
                self._asked[node_id] = self._ask(node, place), self._clock()
            self._verdict(node_id)

    def _verdict(self, node_id: str) -> str | None:
        """What is wrong with a node; None while that is not known."""
        if node_id not in self._asked:
            return None
        answer, since = self._asked[node_id]
        if answer.done():
            problems = answer.result()
        elif self._clock() - since < ANSWER_WITHIN_S:
            return None
        else:
            problems = [f"it has not answered for {ANSWER_WITHIN_S:g} s"]
        if not problems:
            self._unfit.pop(node_id, None)
            return ""
        sentence = f"node {_name(self._alive[node_id])}: {'; '.join(problems)}"
        if self._unfit.get(node_id) != sentence:
            self._unfit[node_id] = sentence
            self._tell(f"left out is {sentence}")
        return sentence

    def _count(self, place: Place) -> int:
        fit = [node for node_id, node in self._alive.items() if self._verdict(node_id) == ""]
        return sum(place.fits(node["Resources"]) for node in fit)


def _name(node: Node) -> str:
    host, address = node.get("NodeManagerHostname", ""), node.get("NodeManagerAddress", "")
    return f"{address} ({host})" if host and host != address else address
