"""An epoch that hangs is ended, and the log says where it stood."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from samtune.tuning.watchdog import Watchdog, hung

HANGS = """
import sys, time, threading
from pathlib import Path
from samtune.study.trial_log import output_to
from samtune.tuning.watchdog import Watchdog

def an_epoch_that_never_ends():
    {hang}

with output_to(Path(sys.argv[1])), Watchdog(0.5).watching():
    print("working", flush=True)
    an_epoch_that_never_ends()
"""


@pytest.mark.parametrize(
    "hang",
    [
        "time.sleep(1000)",
        "threading.Lock().acquire() and threading.Event().wait()",
        "while True: pass",
    ],
)
def test_a_hung_epoch_ends_its_process_and_leaves_a_traceback(tmp_path: Path, hang: str) -> None:
    log = tmp_path / "trial.log"
    code = HANGS.format(hang=hang)
    ended = subprocess.run([sys.executable, "-c", code, str(log)], timeout=60, check=False)
    assert ended.returncode == 1
    assert "an_epoch_that_never_ends" in log.read_text()
    assert "longer than study.epoch_timeout (0:00:00.5" in hung(log)
    with open(log, "a") as file:
        file.write("another attempt prints this\n")
    assert hung(log) == ""


def test_no_log_is_no_hang(tmp_path: Path) -> None:
    assert hung(tmp_path / "trial.log") == ""


def test_the_automatic_limit_is_a_generous_multiple_of_the_longest_epoch() -> None:
    watchdog = Watchdog("auto")
    assert watchdog.limit_s == 3600
    watchdog.note(2.0)
    assert watchdog.limit_s == 600
    watchdog.note(100.0)
    watchdog.note(3.0)
    assert watchdog.limit_s == 2000
    assert Watchdog(None).limit_s is None


def test_an_epoch_in_time_is_not_disturbed() -> None:
    with Watchdog(30.0).watching():
        pass
    with Watchdog(None).watching():
        pass
