"""How long the driver bears a storage that fails."""

from __future__ import annotations

import time


class StorageWaitError(Exception):
    """What was to be written waits for the storage; the caller should come back later."""


class Patience:
    """Bears faults of a storage for so many seconds in a row."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def bear(self, error: OSError) -> None:
        """Takes a fault; raises it once the storage has failed for too long."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since >= self._seconds:
            raise error

    def is_well(self) -> None:
        """The storage works again."""
        self._since = None
