"""What a trial prints is in its log, and the log stays bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from samtune.study import trial_log
from samtune.study.trial_log import output_to

PRINTS = """
import os, sys
from pathlib import Path
from samtune.study.trial_log import output_to
for word in ("first", "second"):
    with output_to(Path(sys.argv[1])):
        print(f"{word} by Python")
        os.system(f"echo {word} by a process")
print("afterwards")
"""


def test_what_is_printed_by_python_and_below_it_is_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "trial.log"
    command = [sys.executable, "-c", PRINTS, str(log)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sorted(log.read_text().splitlines()) == sorted(
        f"{word} by {who}" for word in ("first", "second") for who in ("Python", "a process")
    )
    assert printed.stdout == "afterwards\n"


def test_a_flood_keeps_its_beginning_and_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("MOST_BYTES", 4000), ("HEAD_BYTES", 2000), ("TAIL_BYTES", 1000)):
        monkeypatch.setattr(trial_log, name, size)
    log = tmp_path / "trial.log"
    with output_to(log):
        for i in range(20_000):
            os.write(1, f"line {i}\n".encode())
    text = log.read_text()
    assert len(text) < 4000
    assert text.startswith("line 0\nline 1\n")
    assert "a part of this log was cut out" in text
    assert text.endswith("line 19998\nline 19999\n")


@pytest.mark.parametrize(("printed", "kept"), [(16, 16), (17, 12)])
def test_a_log_of_16_mebibytes_is_kept_whole_and_a_longer_one_is_not(
    tmp_path: Path, printed: int, kept: int
) -> None:
    log = tmp_path / "trial.log"
    with output_to(log), open(log, "ab") as file:
        file.write(bytes(printed * 2**20))
    assert kept * 2**20 <= log.stat().st_size < kept * 2**20 + 100
