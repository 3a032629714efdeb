"""The process that runs a study."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True)
class Driver:
    """The process that runs a study."""

    host: str
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    since: str
    started: str

    @classmethod
    def this_process(cls) -> Driver:
        """The calling process."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), os.getpid(), now, _process_start(os.getpid()))

    @property
    def is_local(self) -> bool:
        """Whether it ran on this machine, so that one can look whether it still does."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; on another machine one must assume so."""
        if not self.is_local:
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return self.started == _process_start(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


def _process_start(pid: int) -> str:
    """The kernel's start time of a process: a pid alone may have been given out again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
