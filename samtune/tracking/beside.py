"""The driver's side of shipping: starts the process, keeps it at work, and waits for its end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from samtune.tracking.process import DRAIN_S
from samtune.tracking.records import Report, report
from samtune.tracking.store import CLIENT_ENVIRONMENT, Store, store_of
from samtune.working_copy import address, publish

SHORTEST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
LAST_STARTS = 3

_at_work: dict[Path, _Beside] = {}


@contextmanager
def following(
    root: Path,
    plugins: Sequence[str] = (),
    plugin_folder: Path | None = None,
    given: bytes = b"",
) -> Iterator[None]:
    """Ships a study's records to MLflow while the body runs, and the rest after it.

    The process goes on by itself for at most half a minute after the body ends; what is left then
    waits for `samtune sync`. Where it dies before, it is started again.

    Args:
        given: code that lies in no module, and that may hold the best trial's model.

    Raises:
        SamtuneError: the study is recorded where a password is needed.
    """
    store = store_of(root)
    beside = _Beside(root, store, plugins, plugin_folder or Path.cwd(), given)
    _at_work[root.absolute()] = beside
    try:
        yield
    finally:
        beside.end()


def wait_until_shipped(root: Path, timeout_s: float = DRAIN_S + 5) -> Report:
    """Waits for `following`'s process to end; returns what MLflow has not taken yet."""
    beside = _at_work.pop(root.absolute(), None)
    if beside is None:
        return report(root)
    beside.join(timeout_s)
    with contextlib.suppress(OSError):  # a log is worth no failure
        publish(root / "tracking.log")
    return report(root, beside.store.address)


class _Beside(threading.Thread):
    """Runs the process until it ends by itself, and starts it again whenever something ends it."""

    def __init__(
        self,
        root: Path,
        store: Store,
        plugins: Sequence[str],
        plugin_folder: Path,
        given: bytes,
    ) -> None:
        super().__init__(name="samtune-tracking", daemon=True)
        self.root = root
        self.store = store
        # A file without a name: code must not lie where others could change it.
        self._given = tempfile.TemporaryFile()  # noqa: SIM115 - `run` closes it
        self._given.write(given)
        self._given.flush()
        self.command = [
            *(sys.executable, "-m", "samtune.tracking"),
            *(address(root), str(self._given.fileno()), str(plugin_folder), *plugins),
        ]
        # Not on the command line, where other users of this machine could read its password.
        self.environment = {
            **CLIENT_ENVIRONMENT,
            **os.environ,
            "MLFLOW_TRACKING_URI": store.uri,
        }
        self._driver_ended = threading.Event()
        self._changing = threading.Lock()
        self._process = self._start_process()
        self.start()

    def run(self) -> None:
        """Keeps the process at work."""
        with self._given:
            self._keep_at_work()

    def _keep_at_work(self) -> None:
        pause_s, last_starts = SHORTEST_PAUSE_S, 0
        while True:
            began = time.monotonic()
            if self._process.wait() == 0:
                return
            if self._driver_ended.is_set():
                last_starts += 1
                if last_starts > LAST_STARTS:
                    return
            if time.monotonic() - began > LONGEST_PAUSE_S:
                pause_s = SHORTEST_PAUSE_S
            self._driver_ended.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            with self._changing:
                self._process = self._start_process()
                if self._driver_ended.is_set():
                    self._close()

    def end(self) -> None:
        """Lets the process know that the driver is done."""
        with self._changing:
            self._driver_ended.set()
            self._close()

    def _start_process(self) -> subprocess.Popen[bytes]:
        with open(self.root / "tracking.log", "ab") as log:
            return subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self.environment,
                pass_fds=(self._given.fileno(),),
                start_new_session=True,  # Ctrl-C is the driver's to handle
            )

    def _close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
