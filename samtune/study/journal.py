"""Appends to a trial's journal; what its lines mean, and which of them count, is in `history`."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from dataclasses import replace
from pathlib import Path

from samtune.errors import FencedError
from samtune.files import naming, set_aside, sync_folder, write_atomically
from samtune.study.history import Attempt, Entry, History, Tail, encoded, read_history
from samtune.working_copy import ChangedError, is_copy

__all__ = ["Attempt", "Entry", "Journal", "now_ms"]


class Journal:
    """Reads a journal, and appends to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tail: Tail | None = None

    def read(self) -> History:
        """What it says now; an absent journal says nothing."""
        return read_history(self._raw())

    def lines(self) -> list[Entry]:
        """Every epoch's line that counts, as it was written."""
        return self.read().lines

    def epochs(self) -> list[Entry]:
        """Each finished epoch once, from epoch 1 without a gap."""
        return self.read().epochs()

    def begin(self, session: int) -> Attempt:
        """Takes the trial over: from here on no other attempt's line counts.

        Raises:
            FencedError: a newer session has an attempt already.
        """
        worker = uuid.uuid4().hex[:8]
        while True:
            tail = self._ready()
            if tail.owner.session > session:
                raise _fenced(self.path, tail.owner)
            attempt = Attempt(session, tail.owner.number + 1, worker)
            # Not forced to the disk: an attempt that leaves no epoch leaves nothing to defend.
            self._write(_beginning(attempt), tail, durable=False)
            if self._ready().owner == attempt:
                return attempt

    def check(self, attempt: Attempt) -> None:
        """Raises `FencedError` if the trial is not this attempt's any more."""
        if (owner := self._ready().owner) != attempt:
            raise _fenced(self.path, owner)

    def append(self, entry: Entry) -> None:
        """Adds a line; when this returns, the epoch survives anything.

        An attempt that has not begun begins with its first line.

        Raises:
            FencedError: a newer attempt has taken the trial over; the line does not count.
            OSError: it cannot be written; the journal is as it was.
        """
        tail = self._ready()
        if entry.by[:2] > tail.owner[:2]:
            self._write(_beginning(entry.by), tail, durable=False)
            tail = self._ready()
        self.check(entry.by)
        # First the names of the files the line speaks of, then the line.
        sync_folder(self.path.parent)
        checksum = self._write(entry, tail, durable=True)
        if self._ready().head != checksum:
            raise _fenced(self.path, self._ready().owner)

    def repair(self) -> str:
        """Makes it fit to be appended to; returns what was damaged, or nothing.

        A torn last line goes. A damaged journal is kept beside, under another name, and the lines
        before the damage stay.
        """
        self._tail = None
        raw = self._raw()
        history = read_history(raw)
        if history.damage:
            aside = set_aside(self.path)
            write_atomically(self.path, raw[: history.end])
            sync_folder(self.path.parent)
            return f"{history.damage}; the journal as it was is kept as {aside.name}"
        if raw and not raw.endswith(b"\n") and is_copy(self.path):
            whole = raw + b"\n" if history.end == len(raw) else raw[: history.end]
            write_atomically(self.path, whole)
        elif raw and not raw.endswith(b"\n"):
            with naming(self.path), open(self.path, "r+b") as file:
                if os.fstat(file.fileno()).st_size != len(raw):
                    return ""  # somebody is just writing
                if history.end == len(raw):  # only its end of line is lost
                    file.seek(0, os.SEEK_END)
                    file.write(b"\n")
                else:
                    file.truncate(history.end)
        return ""

    def _ready(self) -> Tail:
        """Where the next line goes; read anew only if somebody else has written."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            size = 0
        if self._tail is None or self._tail.size != size:
            raw = self._raw()
            if raw and not raw.endswith(b"\n"):
                self.repair()
                raw = self._raw()
            history = read_history(raw)
            if history.damage:
                raise OSError(f"{self.path}: {history.damage}")
            self._tail = history.tail
        return self._tail

    def _write(self, entry: Entry, tail: Tail, *, durable: bool) -> str:
        """Appends the line that follows `tail`; returns its checksum."""
        line, checksum = encoded(replace(entry, line=tail.line + 1, previous=tail.head))
        if is_copy(self.path):
            return self._put(entry, tail, line, checksum)
        with naming(self.path):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            descriptor = os.open(self.path, flags, 0o644)
            try:
                before = os.fstat(descriptor).st_size
                _write_whole(descriptor, line, before, durable=durable)
            finally:
                os.close(descriptor)
        self._tail = None
        if before == tail.size:
            self._tail = Tail(entry.by, checksum, tail.line + 1, before + len(line))
        return checksum

    def _put(self, entry: Entry, tail: Tail, line: bytes, checksum: str) -> str:
        """`_write` where nothing can be appended: the whole journal is put, unless it has grown."""
        raw = self._raw()
        self._tail = None
        try:
            write_atomically(self.path, raw + line)
        except ChangedError:
            # Of another attempt's beginning the caller finds out.
            if entry.epoch and self._ready().owner == entry.by:
                raise
        else:
            if len(raw) == tail.size:
                self._tail = Tail(entry.by, checksum, tail.line + 1, len(raw) + len(line))
        return checksum

    def _raw(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""


def _write_whole(descriptor: int, line: bytes, before: int, *, durable: bool) -> None:
    """Appends the line, or leaves the file of `before` bytes as it was."""
    written = 0
    try:
        while written < len(line):
            written += os.write(descriptor, line[written:])
        if durable:
            os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            if os.fstat(descriptor).st_size == before + written:  # nobody has written behind it
                os.ftruncate(descriptor, before)
        raise


def _beginning(attempt: Attempt) -> Entry:
    return Entry(
        attempt.session, attempt.number, 0, {}, 0.0, now_ms(), "", "", worker=attempt.worker
    )


def _fenced(path: Path, owner: Attempt) -> FencedError:
    return FencedError(
        f"{path.parent.name} was taken over: attempt {owner.number} of session {owner.session} "
        "goes on with it"
    )


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
