"""Code that lies in no module: what tells it apart, and that it arrives in another process."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from samtune import given
from samtune.errors import SamtuneError
from samtune.registry import Registry

NET = """
import math
FACTOR = 2

def scaled(x):
    return [FACTOR * y for y in x]

class Block:
    lr = 0.5
    def __call__(self, x):
        return scaled(x)

class Net(Block):
    def __init__(self, *, depth: int = 3):
        super().__init__()
        self.names = {"a", "b", "c", math.pi}
        self.inner = lambda: depth in {"x", "y", "z"}
    def again(self):
        return Net
"""


def _net(text: str = NET, module: str = "__main__") -> Any:
    names: dict[str, Any] = {"__name__": module}
    exec(compile(text, "<a cell>", "exec"), names)
    return names["Net"]


def test_equal_code_has_an_equal_digest_whatever_it_looks_like() -> None:
    moved = "# a comment\n\n" + NET.replace("FACTOR = 2", "FACTOR = 2  # and another")
    assert given.digest(_net()) == given.digest(_net()) == given.digest(_net(moved))


@pytest.mark.parametrize(
    "change",
    [
        ("FACTOR = 2", "FACTOR = 3"),
        ("lr = 0.5", "lr = 0.25"),
        ("depth: int = 3", "depth: int = 4"),
        ("[FACTOR * y", "[FACTOR + y"),
        ('"c"', '"d"'),
        ('"z"', '"w"'),
        ("return scaled(x)", "return x"),
    ],
    ids=lambda change: change[1],
)
def test_a_change_in_anything_it_uses_changes_the_digest(change: tuple[str, str]) -> None:
    assert change[0] in NET
    assert given.digest(_net(NET.replace(*change))) != given.digest(_net())


def test_the_digest_is_the_same_in_a_process_that_was_sent_the_code() -> None:
    code = "import pickle, sys; from samtune import given; "
    code += "print(given.digest(pickle.load(sys.stdin.buffer)))"
    # Twice, with other hashes of texts: a set of texts has another order there.
    for seed in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-c", code],
            input=given.packed(_net()),
            capture_output=True,
            check=True,
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
        )
        assert ran.stdout.decode().strip() == given.digest(_net())


def test_the_digest_of_a_class_is_the_same_once_it_has_moved_to_a_module(tmp_path: Path) -> None:
    (tmp_path / "moved_net.py").write_text(NET)
    sys.path.insert(0, str(tmp_path))
    try:
        import moved_net
    finally:
        sys.path.remove(str(tmp_path))
    assert not given.in_no_module(moved_net.Net)
    assert given.digest(moved_net.Net) == given.digest(_net())


def test_only_code_of_no_file_is_in_no_module() -> None:
    assert given.in_no_module(_net())
    assert given.in_no_module(_net(module="made_by_hand"))
    assert not given.in_no_module(textwrap.dedent)
    assert not given.in_no_module(ModuleType)


def test_what_cannot_be_sent_or_is_a_data_set_is_refused() -> None:
    with pytest.raises(SamtuneError, match="cannot be sent to the workers"):
        given.packed(
            _net("import threading\nLOCK = threading.Lock()\n" + NET.replace("3)", "LOCK)"))
        )
    with pytest.raises(SamtuneError, match=r"takes 67.* holds data"):
        given.packed(bytes(given.MOST_BYTES + 1))


def test_a_registered_class_of_no_module_goes_by_its_name_and_digest() -> None:
    registry = Registry("model")
    registry.register("net", "classification")(_net())
    name = registry["net"].name
    assert name == f"net@{given.digest(_net())}"
    assert registry[name].factory is registry["net"].factory

    registry.register("net", "classification")(_net(NET.replace("FACTOR = 2", "FACTOR = 3")))
    with pytest.raises(SamtuneError, match=f"{name}' was other code than the net that is here"):
        registry[name]
    with pytest.raises(SamtuneError, match="lies in no module.*--plugin"):
        Registry("model")[name]
    assert name not in registry


def test_a_given_class_arrives_under_the_name_it_was_given_under() -> None:
    registry, there = Registry("model"), Registry("model")
    entry = registry.give(_net(), "classification")
    sent = pickle.loads(given.packed(entry.factory))
    there.register(entry.name, "classification")(sent)
    assert there[entry.name].parameters == entry.parameters
    with pytest.raises(ValueError, match="is a class or a function, got 3"):
        registry.give(3, "classification")  # type: ignore[arg-type]
