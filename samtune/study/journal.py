"""A trial's journal: one fsynced line for each finished epoch, the truth all else is derived from.

A line torn by a crash is not an epoch. An epoch that had to be trained again, because its state was
damaged, brings a second line: its first line keeps the metrics, its latest names the state.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import FiniteFloat

from samtune.files import parse_json, sync_folder, write_atomically


@dataclass(frozen=True)
class Entry:
    """One finished epoch.

    Attributes:
        session, attempt: who trained it; an attempt is one start of the trial in a worker.
        time_ms: when it finished, milliseconds since 1970; shown to people, never used to order.
        state, sha256: the training state after it, and its digest.
        precision: what the model computed in; empty where nothing was written down.
    """

    session: int
    attempt: int
    epoch: int
    metrics: dict[str, FiniteFloat]
    duration_s: FiniteFloat
    time_ms: int
    state: str
    sha256: str
    precision: str = ""


class Journal:
    """Reads a journal, and appends to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[Entry]:
        """Every whole line as it was written."""
        entries = []
        for line in self._raw().split(b"\n"):
            try:
                entries.append(parse_json(line, Entry))
            except ValueError:
                continue  # torn by a crash, hence not an epoch
        return entries

    def epochs(self) -> list[Entry]:
        """Each finished epoch once, from epoch 1 without a gap."""
        known: dict[int, Entry] = {}
        for entry in self.lines():
            first = known.get(entry.epoch, entry)
            known[entry.epoch] = replace(first, state=entry.state, sha256=entry.sha256)
        epochs: list[Entry] = []
        while len(epochs) + 1 in known:
            epochs.append(known[len(epochs) + 1])
        return epochs

    def append(self, entry: Entry) -> None:
        """Adds a line; when this returns, the epoch survives anything."""
        # First the names of the files the line speaks of, then the line.
        sync_folder(self.path.parent)
        line = json.dumps(asdict(entry), allow_nan=False).encode() + b"\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            written = os.write(descriptor, line)
            if written != len(line):
                raise OSError(f"{self.path}: wrote {written} of {len(line)} bytes")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def repair(self) -> None:
        """Drops a torn last line, so that the next one starts on a line of its own."""
        raw = self._raw()
        if raw and not raw.endswith(b"\n"):
            write_atomically(self.path, raw[: raw.rfind(b"\n") + 1])

    def _raw(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
