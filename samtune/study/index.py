"""What a study's ended trials come to, in one file: derived, and never needed.

A trial that has ended is read from its own files once. What was found lies in `index` from then on,
with the size, times and inode of the three files that it was found in. Where any of these differs,
or the index does not have its own checksum, the trial's files are read again, so that an index that
is stale, damaged, of another study or gone changes nothing but the time that reading takes. Trials
with any damage are never in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from samtune.config.trial import TrialRecord
from samtune.study.derived import read_derived, write_derived
from samtune.study.journal import Entry
from samtune.study.trial_folder import TRIAL_FILES, EndState, TrialFolder

SCHEMA = 1
FEWEST_NEW = 50
NEW_SHARE = 0.1  # of a whole index: it is written so seldom that all writing stays in proportion
SETTLED_NS = 2_000_000_000  # a file that is changed twice within a tick of its clock looks the same

Stamp = tuple[int, ...]


def stamp_of(folder: str, names: tuple[str, ...] = TRIAL_FILES) -> Stamp:
    """Size, times and inode of each of these files, zeros for one that is not there."""
    found: list[int] = []
    for name in names:
        try:
            stat = os.stat(f"{folder}/{name}")
        except OSError:
            found += (0, 0, 0, 0)
        else:
            found += (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    return tuple(found)


def is_settled(stamp: Stamp) -> bool:
    """Whether files of this stamp that are changed from now on will have another one."""
    return time.time_ns() - max(*stamp[1::4], *stamp[2::4]) > SETTLED_NS


@dataclass(frozen=True)
class Content:
    """What a trial's `trial.json` and its journal say."""

    record: TrialRecord
    epochs: list[Entry]


class Head(NamedTuple):
    """What is known of an ended trial before its content is parsed.

    Attributes:
        state, epoch, reason: its outcome.
        value: the metric that it counts by.
    """

    key: str
    stamp: Stamp
    session: int
    metric: str
    mode: str
    select: str
    state: EndState
    epoch: int
    reason: str
    value: float | None


_contents = TypeAdapter(Content)
_heads = TypeAdapter(list[Head])


class _Bodies:
    """The lines after the first, told apart once one is asked for: `list` needs none."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._lines: list[bytes] = []

    def line(self, i: int) -> bytes:
        """The i-th of them."""
        if content := self._content:
            self._lines = content.split(b"\n")[1:]
            self._content = b""
        return self._lines[i]


class Index:
    """The index of one study: what is read off it, and what is new.

    Args:
        path: where it lies.
        study_id: whose it must be.
    """

    def __init__(self, path: Path, study_id: str) -> None:
        self._path = path
        self._source = f"trials of study {study_id}, schema {SCHEMA}"
        self._lines: dict[str, tuple[Head, Callable[[], bytes]]] = {}
        self._kept: list[tuple[Head, Callable[[], bytes]]] = []
        self._new = 0
        self._is_read = False

    def read(self) -> None:
        """Takes in what the file says, if it is whole and this study's."""
        self._is_read = True
        if content := read_derived(self._path, self._source):
            with contextlib.suppress(ValueError):  # whole, and made by other hands
                heads = _heads.validate_json(content[: content.index(b"\n")])
                if content.count(b"\n") == len(heads):
                    bodies = _Bodies(content)
                    found = enumerate(heads)
                    self._lines = {h.key: (h, partial(bodies.line, i)) for i, h in found}

    def find(self, folder: TrialFolder) -> tuple[Head, Callable[[], Content]] | None:
        """What it has of a trial and how to parse the rest; None if that may not hold any more."""
        if folder.key not in self._lines:
            return None
        head, body = self._lines[folder.key]
        if head.stamp != stamp_of(str(folder.root)):
            return None
        self._kept.append((head, body))
        return head, lambda: _contents.validate_json(body(), strict=True)

    def add(self, head: Head, content: Content) -> None:
        """Takes in a trial that was read from its files, which had this stamp before."""
        if is_settled(head.stamp):
            self._kept.append((head, lambda: _contents.dump_json(content)))
            self._new += 1

    def close(self) -> None:
        """Replaces the file, if it was read and enough is new; who may not write does without."""
        if self._is_read and self._new >= max(FEWEST_NEW, NEW_SHARE * len(self._kept)):
            self._write()
        self._lines, self._kept, self._new = {}, [], 0

    def _write(self) -> None:
        lines = [json.dumps([head for head, _ in self._kept]).encode()]
        lines += [body() for _, body in self._kept]
        write_derived(self._path, self._source, b"\n".join(lines))
