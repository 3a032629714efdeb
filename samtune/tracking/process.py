"""The process beside the driver that ships while a study runs."""

from __future__ import annotations

import os
import select
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from samtune.errors import SamtuneError
from samtune.registry import load_plugins, take_given
from samtune.study.folder import StudyFolder
from samtune.study.lease import lock_of
from samtune.tracking.page import Page
from samtune.tracking.redaction import masked
from samtune.tracking.shipper import ReplacedError, Round, Shipper
from samtune.working_copy import is_copy

POLL_S = 1.0
POLL_BUCKET_S = 10.0  # each look at one is paid for
REST = 10  # times as long as a round took
LONGEST_WAIT_S = 30.0
LONGEST_LAST_WAIT_S = 4.0
DRAIN_S = 30.0
LAST_TRIES = 3


def follow(root: Path, given: int, plugin_folder: Path, plugins: Sequence[str]) -> None:
    """Ships until the driver closes our standard input, then the rest for half a minute at most.

    Args:
        given: the descriptor of a file with code that lies in no module (`samtune.given`).
        plugins: the user's modules that may hold the best trial's model.
    """
    uri = os.environ["MLFLOW_TRACKING_URI"]
    sys.stderr = sys.stdout = _Masking(sys.stderr, uri)

    def load_code() -> None:
        load_plugins(plugins, plugin_folder)
        # Not `read`: a process that was started before shares this descriptor's place in the file.
        take_given(os.pread(given, os.fstat(given).st_size, 0))

    with lock_of(root / "tracking.lock"):
        _Follower(root, uri).run(load_code)


class _Follower:
    """Rounds of shipping, with a rest after each that grows while MLflow is in trouble."""

    def __init__(self, root: Path, uri: str) -> None:
        self.folder = StudyFolder(root)
        self.uri = uri
        self.shipper: Shipper | None = None
        self.said = ""
        self.poll_s = POLL_BUCKET_S if is_copy(root) else POLL_S
        self.wait_s = self.poll_s
        self.fruitless = 0
        self.deadline: float | None = None

    def run(self, load_code: Callable[[], None]) -> None:
        """Ships to the end; `load_code` is called before a model is built."""
        # Importing MLflow takes seconds of a core, which the first trials need more.
        self.folder.fetch()
        while not (
            _closed_within(self.poll_s) or any(self.folder.root.glob("trials/*/epochs.jsonl"))
        ):
            self.folder.fetch()
        self.folder.fetch()
        if not any(self.folder.root.glob("trials/*/trial.json")):
            return  # the study ended before its first trial
        with Page(self.folder, self._log) as page:
            try:
                self._follow(page, load_code)
            except ReplacedError as error:
                self._say(str(error))

    def _follow(self, page: Page, load_code: Callable[[], None]) -> None:
        while True:
            if _closed_within(self.wait_s if self.deadline is None else 0) and not self.deadline:
                self.deadline = time.monotonic() + DRAIN_S
                self.fruitless, self.wait_s = 0, self.poll_s
            # Asked before shipping: what ends in between is shipped in another round.
            ended = self.deadline is not None and not self.folder.is_running
            result = self._round(ended)
            if ended:
                page.begin()
            if ended and not result.failure:
                assert self.shipper is not None
                self.shipper.register_champion(load_code)
                break
            if self.deadline is None:
                continue
            if time.monotonic() > self.deadline:
                break
            if result.unreachable and self.fruitless >= LAST_TRIES:
                break
            time.sleep(min(self.wait_s, LONGEST_LAST_WAIT_S) if result.failure else 0.2)
        if page.is_made(self._left_s()) and not result.failure:
            self._round(ended)
        if page.is_lost and self.shipper:
            self.shipper.note_lost_page()

    def _left_s(self) -> float:
        assert self.deadline is not None
        return max(POLL_S, self.deadline - time.monotonic())

    def _round(self, ended: bool) -> Round:
        started = time.monotonic()
        try:
            self.shipper = self.shipper or Shipper(self.folder, self.uri, self._log)
            result = self.shipper.ship(until=self.deadline, whole=ended)
        except ReplacedError:
            raise
        except SamtuneError as error:
            result = Round(failure=str(error))
        except Exception as error:  # noqa: BLE001 - whatever happens here, the study goes on
            self._log(traceback.format_exc())
            result = Round(failure=f"{type(error).__name__}: {error}")
        self._say(result.failure)
        if result.failure and not result.progress:
            self.fruitless += 1
            self.wait_s = min(2 * self.wait_s, LONGEST_WAIT_S)
        else:
            self.fruitless = 0
            # Thousands of journals take seconds to read: leave the core to the trials.
            self.wait_s = min(max(self.poll_s, REST * (time.monotonic() - started)), LONGEST_WAIT_S)
        return result

    def _say(self, failure: str) -> None:
        """Logs what has changed: an hour without MLflow is two lines."""
        if failure != self.said:
            self._log(failure or "MLflow takes everything again")
            self.said = failure

    def _log(self, text: str) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        print(f"{now} {text}", file=sys.stderr, flush=True)


class _Masking:
    """A stream that keeps passwords out of what is written to it, by MLflow's loggers too."""

    def __init__(self, stream: TextIO, uri: str) -> None:
        self._stream = stream
        self._uri = uri

    def write(self, text: str) -> int:
        self._stream.write(masked(text, [self._uri]))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _closed_within(seconds: float) -> bool:
    """Whether the driver has closed the pipe, by its own will or by dying."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and os.read(sys.stdin.fileno(), 1) == b""
