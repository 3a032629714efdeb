"""The oracle finds what is left behind."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.faults.oracle import MARK, SHARED_MEMORY, check_nothing_left, shared_memory


@pytest.fixture
def block() -> Iterator[Path]:
    """A place in shared memory that nobody else has."""
    path = Path(SHARED_MEMORY) / f"samtune-test-{uuid.uuid4().hex}"
    yield path
    path.unlink(missing_ok=True)


def test_shared_memory_that_nobody_holds_is_found(tmp_path: Path, block: Path) -> None:
    before = shared_memory()
    with block.open("w"):  # somebody's, as long as it is open
        check_nothing_left("none", tmp_path, before, killed=False)
    with pytest.raises(AssertionError, match=f"O8.*{block.name}"):
        check_nothing_left("none", tmp_path, before, killed=False, within_s=0)


@pytest.mark.parametrize("name", ["tiny/.tune", "tiny/trials/t0001/.tmp-0"])
def test_temporary_files_are_found_unless_a_kill_explains_them(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    check_nothing_left("none", tmp_path, shared_memory(), killed=True)
    with pytest.raises(AssertionError, match=f"O8.*{name}"):
        check_nothing_left("none", tmp_path, shared_memory(), killed=False)


def test_a_process_of_the_study_is_found(tmp_path: Path) -> None:
    waits = ["sh", "-c", "echo up; read _"]
    environment = {**os.environ, MARK: "left"}
    process = subprocess.Popen(waits, env=environment, stdin=PIPE, stdout=PIPE)
    with process:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"  # before that /proc has nothing of it
        with pytest.raises(AssertionError, match=f"O8.*{process.pid} sh -c echo up"):
            check_nothing_left("left", tmp_path, shared_memory(), killed=False, within_s=0)
        process.kill()
    check_nothing_left("left", tmp_path, shared_memory(), killed=False, within_s=0)
