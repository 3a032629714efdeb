"""Who holds a study that lies in a bucket: an object that its holder renews while it lives.

A holder is gone once its lease was not renewed for as long as the lease says, by the clock of
whoever waits for it: no two clocks are ever compared. A process of this machine that has ended is
gone at once. Who takes a lease over may be wrong, as with a holder that was only held up: it then
loses its next renewal, and what it writes is fenced by its study's session.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from filelock import FileLock, Timeout
from pydantic import Field

from samtune import working_copy
from samtune.errors import DamagedFileError, SamtuneError
from samtune.files import read_json, write_json
from samtune.study.driver import Driver
from samtune.working_copy import ChangedError, current

LEASE_S = 60.0
RENEWALS = 4  # in the time of a lease
POLL_S = 1.0


@dataclass(frozen=True)
class _Held:
    """A lease as its object says it.

    Attributes:
        holder: None once it was given back.
        renewals: counts on with each.
        lease_s: how long it holds from one renewal to the next.
    """

    id: str
    holder: Driver | None
    renewals: int
    lease_s: Annotated[float, Field(gt=0, le=3600)]


class Lease:
    """A lock for what lies in a bucket, with the methods of `filelock.FileLock` that samtune uses.

    Args:
        path: stands for its object.
        timeout: -1 waits for the lease; 0 for as long as it takes to see that it is held.
        force: takes it from whoever holds it.
    """

    def __init__(self, path: Path, timeout: float = -1, *, force: bool = False) -> None:
        self._path = path
        self._timeout = timeout
        self._force = force
        self._mine: _Held | None = None
        self._ended = threading.Event()
        self._renewing: threading.Thread | None = None

    def acquire(self) -> None:
        """Takes the lease.

        Raises:
            Timeout: somebody else holds it, and is alive.
            SamtuneError: the store puts without regard to conditions.
            OSError: the store cannot be asked.
        """
        while not self._take():
            if self._timeout == 0:
                raise Timeout(str(self._path))
            time.sleep(POLL_S)
        if not working_copy.honours_conditions(self._path):
            raise SamtuneError(
                f"{working_copy.address(self._path.parent)}: this store knows no conditional "
                "writes (If-Match, If-None-Match), and without them two drivers could write to "
                "one study: take another store, or a folder"
            )
        self._ended.clear()
        self._renewing = threading.Thread(target=self._renew, name="samtune-lease", daemon=True)
        self._renewing.start()

    def release(self) -> None:
        """Gives it back; where that fails, it runs out by itself."""
        self._ended.set()
        if self._renewing:
            self._renewing.join()
        if self._mine:
            with contextlib.suppress(OSError):
                self._write(replace(self._mine, holder=None))
        self._mine = None

    def __enter__(self) -> Lease:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _take(self) -> bool:
        """Takes the lease if its holder is gone; False once it was seen alive."""
        seen = _read(self._path)
        if seen and seen.holder and not self._force and _may_live(seen.holder):
            if seen.holder.is_local:
                return False
            print(
                f"waiting up to {seen.lease_s:g} s to see whether {seen.holder} is still at work",
                file=sys.stderr,
            )
            deadline = time.monotonic() + seen.lease_s
            while time.monotonic() < deadline:
                time.sleep(min(POLL_S, seen.lease_s / RENEWALS))
                now = _read(self._path)
                if now is None or now.holder is None:
                    break
                if now != seen:
                    return False
        lease_s = float(os.environ.get("SAMTUNE_LEASE_S", LEASE_S))
        try:
            self._write(_Held(uuid.uuid4().hex, Driver.this_process(), 0, lease_s))
        except ChangedError:
            return False  # somebody else was first
        return True

    def _write(self, held: _Held) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)  # a copy begins empty
        write_json(self._path, asdict(held))
        self._mine = held

    def _renew(self) -> None:
        """Renews it until it is given back, or somebody has taken it."""
        while (mine := self._mine) and not self._ended.wait(mine.lease_s / RENEWALS):
            try:
                self._write(replace(mine, renewals=mine.renewals + 1))
            except ChangedError:
                self._mine = None  # the session's number fences what its holder writes
            except OSError:
                continue  # the store may be back in time


def lock_of(path: Path, timeout: float = -1, *, force: bool = False) -> FileLock | Lease:
    """What keeps others out: a lock, or a lease where the path stands for an object."""
    if working_copy.is_copy(path):
        return Lease(path, timeout, force=force)
    return FileLock(path, timeout)


def is_alive(path: Path, holder: Driver) -> bool:
    """Whether the holder of a lock still runs, for who only reads.

    Of another machine one must assume so, but for a lease that has run out by the store's clock.
    """
    if not working_copy.is_copy(path) or holder.is_local:
        return holder.is_alive
    held, age_s = _read(path), working_copy.age_s(path)
    return bool(held and held.holder and age_s is not None and age_s < held.lease_s)


def _read(path: Path) -> _Held | None:
    try:
        return read_json(current(path), _Held)
    except DamagedFileError:
        return None  # whoever is first replaces it


def _may_live(holder: Driver) -> bool:
    return not holder.is_local or holder.is_alive
