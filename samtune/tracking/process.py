"""The process beside the driver that ships while a study runs."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from samtune.study.folder import StudyFolder
from samtune.tracking.shipper import Shipper, pending
from samtune.tracking.store import CLIENT_ENVIRONMENT, masked, tracking_uri

if TYPE_CHECKING:
    pass

POLL_S = 1.0
REST = 10  # times as long as a round took
DRAIN_S = 30.0
LAST_TRIES = 3


@contextmanager
def following(
    root: Path, plugins: Sequence[str] = (), plugin_folder: Path | None = None
) -> Iterator[None]:
    """Ships a study's records to MLflow while the body runs, and the rest after it.

    The process goes on by itself for at most half a minute after the body ends; what is left then
    waits for `samtune sync`.
    """
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri(), **CLIENT_ENVIRONMENT}
    with open(root / "tracking.log", "ab") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "samtune.tracking"),
                *(str(root), str(plugin_folder or Path.cwd()), *plugins),
            ],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C is the driver's to handle
        )
    try:
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        threading.Thread(target=process.wait, daemon=True).start()  # so that no zombie stays


def wait_until_shipped(root: Path, timeout_s: float = DRAIN_S) -> int:
    """Waits for `following`'s process to end; returns how many epochs MLflow has not taken yet."""
    for _ in range(2):  # an older session's process may have held the lock, and ours be about to
        with contextlib.suppress(Timeout), FileLock(root / "tracking.lock", timeout=timeout_s):
            pass
        if not pending(root):
            break
        time.sleep(1.0)
    return pending(root)


def follow(root: Path) -> None:
    """Ships until the driver closes our standard input, then the rest."""
    folder = StudyFolder(root)
    uri = os.environ["MLFLOW_TRACKING_URI"]
    with FileLock(root / "tracking.lock"):
        # Importing MLflow takes seconds of a core, which the first trials need more.
        while not (_closed_within(POLL_S) or any(root.glob("trials/*/epochs.jsonl"))):
            pass
        shipper: Shipper | None = None
        wait_s = POLL_S
        deadline = None
        refusals = 0
        while True:
            driver_at_work = not _closed_within(wait_s if deadline is None else 0.0)
            if not driver_at_work and deadline is None:
                deadline = time.monotonic() + DRAIN_S
            # Asked before shipping: what ends in between is shipped in another round.
            ended = not driver_at_work and not folder.is_running
            try:
                shipper = shipper or Shipper(folder, uri)
                started = time.monotonic()
                shipper.ship()
                # Thousands of journals take seconds to read: leave the core to the trials.
                round_s = time.monotonic() - started
                wait_s, refusals = min(max(POLL_S, REST * round_s), 30.0), 0
                if ended:
                    shipper.register_champion()
                    return
            except Exception:  # noqa: BLE001 - whatever MLflow does, the study goes on
                print(masked(traceback.format_exc(), uri), file=sys.stderr, flush=True)
                wait_s, refusals = min(2 * wait_s, 30.0), refusals + 1
            if deadline is not None:
                if time.monotonic() > deadline or refusals >= LAST_TRIES:
                    return
                time.sleep(0.2)


def _closed_within(seconds: float) -> bool:
    """Whether the driver has closed the pipe, by its own will or by dying."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and os.read(sys.stdin.fileno(), 1) == b""
