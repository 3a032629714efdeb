"""Ends a worker whose epoch hangs: a dead lock in a loader, a network that never answers.

The interpreter's own `faulthandler` does it, from a thread that needs no lock of Python's: it
writes where every thread stands into the trial's log and ends the process, and Ray starts another.
"""

from __future__ import annotations

import faulthandler
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

FIRST_S = 3600.0  # reading data, compiling, a first epoch of unknown length
SHORTEST_S = 600.0
TIMES_LONGEST = 20
LOOKED_AT = 65536
DUMP = re.compile(
    r"Timeout \(([0-9:.]+)\)!\n(?:(?:Thread|Current thread|  File|Extension).*\n|\n)*\Z"
)


class Watchdog:
    """Watches the epochs of one trial.

    Args:
        timeout: seconds, None for never, or `auto`: a generous multiple of what an epoch took.
    """

    def __init__(self, timeout: Literal["auto"] | float | None) -> None:
        self._timeout = timeout
        self._longest = 0.0

    @property
    def limit_s(self) -> float | None:
        """What the next epoch may take."""
        if self._timeout != "auto":
            return self._timeout
        return max(SHORTEST_S, TIMES_LONGEST * self._longest) if self._longest else FIRST_S

    def note(self, duration_s: float) -> None:
        """Takes what an epoch took."""
        self._longest = max(self._longest, duration_s)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Ends this process unless the body is done within the limit."""
        if (limit := self.limit_s) is None:
            yield
            return
        faulthandler.dump_traceback_later(limit, exit=True, file=2)  # standard error, by number
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def hung(log: Path) -> str:
    """How long the epoch took that the watchdog ended, if that is the last thing in the log."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - LOOKED_AT))
            found = DUMP.search(file.read().decode(errors="replace"))
    except OSError:
        return ""
    return f"an epoch took longer than study.epoch_timeout ({found[1]})" if found else ""
