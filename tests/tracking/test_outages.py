"""MLflow gone, hung or in trouble for a while under a study that goes on: minutes in all."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from samtune import tracking
from samtune.study.folder import StudyFolder
from samtune.study.journal import Journal
from samtune.study.trial_folder import Outcome
from tests.tracking.conftest import Proxy, append, assert_all_there

pytestmark = pytest.mark.chaos


def _train(folder: StudyFolder, key: str, epochs: int, pause_s: float) -> list[float]:
    """Writes a trial's epochs as a worker does; returns how long each took to write."""
    trial = folder.trial(key)
    taken = []
    for epoch in range(len(Journal(trial.journal).epochs()) + 1, epochs + 1):
        started = time.perf_counter()
        append(trial, epoch)
        taken.append(time.perf_counter() - started)
        time.sleep(pause_s)
    trial.end(Outcome("finished", epochs))
    return taken


@pytest.mark.parametrize("fate", ["hang", "500", "429", "drop"])
def test_an_outage_of_half_a_minute_is_made_up_for_without_a_hand(
    remote: StudyFolder, proxy: Proxy, direct: str, fate: str
) -> None:
    over = time.monotonic() + 30
    proxy.rule = lambda *_: fate if time.monotonic() < over else "pass"
    append(remote.trial("t0004"), 4)
    (remote.trial("t0004").root / "outcome.json").unlink()
    with tracking.following(remote.root):
        _train(remote, "t0004", 40, 0.5)
    assert tracking.wait_until_shipped(remote.root, 90).missing == ""
    assert_all_there(direct, remote)


def test_a_server_that_dies_costs_the_study_nothing(
    remote: StudyFolder, proxy: Proxy, direct: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (remote.trial("t0004").root / "outcome.json").unlink()
    with tracking.following(remote.root):
        _train(remote, "t0004", 20, 0.5)
        proxy.close()
        _train(remote, "t0004", 30, 0.2)
    started = time.monotonic()
    assert "epochs" in tracking.wait_until_shipped(remote.root).missing
    assert time.monotonic() - started < 30
    monkeypatch.setenv("MLFLOW_TRACKING_URI", direct)
    tracking.sync(remote)
    assert_all_there(direct, remote)


def test_a_locked_database_is_waited_for(folder: StudyFolder, uri: str) -> None:
    database = sqlite3.connect(uri.removeprefix("sqlite:///"), check_same_thread=False)
    database.execute("BEGIN EXCLUSIVE")
    unlock = threading.Timer(45, database.rollback)
    unlock.start()
    with tracking.following(folder.root):
        time.sleep(40)
        folder.trial("t0002").end(Outcome("finished", 1))
    assert tracking.wait_until_shipped(folder.root, 90).missing == ""
    assert_all_there(uri, folder)


def test_a_shipper_killed_again_and_again_loses_nothing(
    remote: StudyFolder, proxy: Proxy, direct: str
) -> None:
    (remote.trial("t0004").root / "outcome.json").unlink()
    over = threading.Event()

    def kill() -> None:
        while not over.wait(7):
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                words = entry.read_bytes().split(b"\0") if entry.exists() else []
                if b"samtune.tracking" in words and str(remote.root).encode() in words:
                    os.kill(int(entry.parent.name), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    with tracking.following(remote.root):
        killer.start()
        _train(remote, "t0004", 60, 0.5)
        over.set()
        killer.join()
    assert tracking.wait_until_shipped(remote.root, 90).missing == ""
    assert_all_there(direct, remote)
