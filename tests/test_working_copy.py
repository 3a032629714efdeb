"""A process's copy of what lies in a bucket."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from samtune import working_copy
from samtune.errors import SamtuneError
from samtune.files import remove, write_atomically
from samtune.working_copy import ChangedError, address, at_hand, current, local_path
from tests.s3_server import S3


@pytest.mark.parametrize("given", ["s3://bucket", "s3://bucket/a", "s3://my.bucket-1/a b/c"])
def test_an_address_has_a_place_here_and_the_place_its_address(given: str) -> None:
    path = local_path(given)
    assert address(path) == given
    assert local_path(given + "/") == path
    assert address(path / "x") == given + "/x"


@pytest.mark.parametrize(
    "given",
    ["s3://", "s3:///a", "s3://Bucket/a", "s3://bucket/../a", "s3://bucket/a//b", "s3://u:p@b"],
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(SamtuneError, match="write s3://BUCKET or s3://BUCKET/FOLDER"):
        local_path(given)


def test_a_file_elsewhere_is_a_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert address(path) == str(path)
    assert current(path) == at_hand(path) == path
    write_atomically(path, b"1")
    remove(path)
    assert not path.exists()


def test_what_one_machine_writes_another_reads_and_the_slower_writer_loses(s3: S3) -> None:
    storage = f"s3://{s3.new_bucket()}/x"
    here = local_path(storage) / "a.json"
    working_copy.new_copies()
    there = local_path(storage) / "a.json"
    assert here != there
    assert not current(there).exists()
    here.parent.mkdir(parents=True)
    write_atomically(here, b"1")
    assert current(there).read_bytes() == b"1"
    write_atomically(there, b"2")
    with pytest.raises(ChangedError):
        write_atomically(here, b"3")
    assert here.read_bytes() == there.read_bytes() == b"2"  # it has learned what is there
    write_atomically(here, b"4")
    assert current(there).read_bytes() == b"4"
    remove(there)
    assert not current(here).exists()


COPIES = """
import sys
from samtune import working_copy
path = working_copy.local_path("s3://bucket/a")
path.mkdir(parents=True)
print(path, flush=True)
sys.stdin.read()
"""


def test_the_copy_of_a_process_that_ends_or_is_killed_is_removed() -> None:
    def start() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", COPIES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    killed, left = start()
    ended, gone = start()
    assert left.is_dir()  # nobody takes it from a living process
    assert left.parents[1].parent == Path(tempfile.gettempdir()).resolve()
    assert left.parents[1].stat().st_mode & 0o77 == 0
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert left.is_dir()
    ended.communicate("")
    assert not gone.exists()
    assert not left.parents[1].exists()
