"""A trial's journal: the truth all else is derived from.

An attempt is one start of the trial in a worker. It begins with a line, and every epoch it finishes
adds one. Lines are chained: each holds the checksum of the line before it and its own. What counts
is decided by the order in the file alone, never by a clock:

- A line of the attempt that began last counts if it follows the last line that counts.
- A line of an older attempt behind a newer one's beginning was written by a worker that was held
  up. It does not count, so whatever such a worker still writes changes nothing.
- A last line without an end, torn by a crash, is no epoch.
- Any other line is damage. All before it counts, nothing after it does.

What counts once counts for good. An epoch that had to be trained again, because its state was
damaged, brings a second line: its first line keeps the metrics, its latest names the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import uuid
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from pydantic import FiniteFloat

from samtune.errors import FencedError
from samtune.files import naming, parse_json, set_aside, sync_folder, write_atomically


class Attempt(NamedTuple):
    """One start of a trial in a worker; a later one is greater.

    Attributes:
        number: counts a trial's attempts over all sessions.
        worker: drawn at random, so that no two workers take themselves for each other.
    """

    session: int
    number: int
    worker: str = ""

    def __str__(self) -> str:
        return f"a{self.number}-{self.worker}" if self.worker else f"a{self.number}"


@dataclass(frozen=True)
class Entry:
    """One finished epoch, or the beginning of an attempt: epoch 0.

    Attributes:
        session, attempt, worker: who trained it (`Attempt`).
        time_ms: when it finished, milliseconds since 1970; shown to people, never used to order.
        state, sha256: the training state after it, and its digest.
        weights, weights_sha256: the weights after it, where they were the best so far.
        line, previous: its number, and the checksum of the line before; `Journal` fills them in.
    """

    session: int
    attempt: int
    epoch: int
    metrics: dict[str, FiniteFloat]
    duration_s: FiniteFloat
    time_ms: int
    state: str
    sha256: str
    weights: str = ""
    weights_sha256: str = ""
    worker: str = ""
    line: int = field(default=0, compare=False)
    previous: str = field(default="", compare=False)

    @property
    def by(self) -> Attempt:
        """Who trained it."""
        return Attempt(self.session, self.attempt, self.worker)

    def again(self, later: Entry) -> Entry:
        """This epoch once it was trained again: its metrics with the later one's files."""
        kept = later if later.weights else self
        return replace(
            self,
            state=later.state,
            sha256=later.sha256,
            weights=kept.weights,
            weights_sha256=kept.weights_sha256,
        )


class Tail(NamedTuple):
    """Where the next line goes.

    Attributes:
        owner: the attempt that began last.
        head: the checksum of the last line that counts.
        line: how many lines count, beginnings included.
        size: the journal's bytes.
    """

    owner: Attempt
    head: str
    line: int
    size: int


@dataclass(frozen=True)
class History:
    """What a journal says.

    Attributes:
        lines: every epoch's line that counts, in order.
        late: how many lines of older attempts came too late to count.
        damage: what is wrong with the first damaged line; empty where none is.
        end: the bytes of the whole lines before damage or a torn end.
    """

    lines: list[Entry]
    tail: Tail
    late: int
    damage: str
    end: int

    def epochs(self) -> list[Entry]:
        """Each finished epoch once, from epoch 1 without a gap."""
        epochs: list[Entry] = []
        for entry in self.lines:
            if entry.epoch > len(epochs):
                epochs.append(entry)
            else:
                epochs[entry.epoch - 1] = epochs[entry.epoch - 1].again(entry)
        return epochs


class Journal:
    """Reads a journal, and appends to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tail: Tail | None = None

    def read(self) -> History:
        """What it says now; an absent journal says nothing."""
        return _history(self._raw())

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
        history = _history(raw)
        if history.damage:
            aside = set_aside(self.path)
            write_atomically(self.path, raw[: history.end])
            sync_folder(self.path.parent)
            return f"{history.damage}; the journal as it was is kept as {aside.name}"
        if raw and not raw.endswith(b"\n"):
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
            history = _history(raw)
            if history.damage:
                raise OSError(f"{self.path}: {history.damage}")
            self._tail = history.tail
        return self._tail

    def _write(self, entry: Entry, tail: Tail, *, durable: bool) -> str:
        """Appends the line that follows `tail`; returns its checksum."""
        line, checksum = _encoded(replace(entry, line=tail.line + 1, previous=tail.head))
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


_CHECKSUM = re.compile(rb', "checksum": "([0-9a-f]{16})"}$')


def _encoded(entry: Entry) -> tuple[bytes, str]:
    """A line with its end, and its checksum."""
    body = json.dumps(asdict(entry), allow_nan=False).encode()
    checksum = _checksum(body)
    return body[:-1] + f', "checksum": "{checksum}"}}\n'.encode(), checksum


def _decoded(line: bytes) -> tuple[Entry, str] | None:
    """A line's content and its checksum; None if it is not what was written."""
    found = _CHECKSUM.search(line)
    if found is None:
        return None
    checksum = found[1].decode()
    body = line[: found.start()] + b"}"
    if _checksum(body) != checksum:
        return None
    try:
        return parse_json(body, Entry), checksum
    except ValueError:
        return None


def _checksum(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]


def _history(raw: bytes) -> History:
    lines: list[Entry] = []
    owner, head, epoch, late, end, damage = Attempt(0, 0), "", 0, 0, 0, ""
    counted = {head}
    for number, line in enumerate(raw.split(b"\n"), 1):
        is_tail = end + len(line) == len(raw)  # no end of line after it
        decoded = _decoded(line)
        if decoded is None:
            damage = "" if is_tail else f"line {number} is damaged"
            break
        entry, checksum = decoded
        by, is_owner = entry.by, entry.by == owner
        follows = entry.previous == head and entry.epoch <= epoch + 1
        begins = entry.epoch == 0 and entry.previous in counted
        if checksum in counted:
            pass  # a line twice says nothing new
        elif not is_owner and by[:2] <= owner[:2]:
            late += 1
        elif not (follows if is_owner else begins):
            damage = f"line {number} does not follow the line before it: a line is gone there"
            break
        else:
            counted.add(checksum)
            owner, head = by, checksum
            if entry.epoch:
                lines.append(entry)
                epoch = max(epoch, entry.epoch)
        end = min(end + len(line) + 1, len(raw))
    tail = Tail(owner, head, len(counted) - 1, len(raw))
    return History(lines, tail, late, damage, end)


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
