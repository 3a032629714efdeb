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

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

from pydantic import FiniteFloat

from samtune.files import parse_json


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
        precision: what the model computed in; empty where nothing was written down.
        parameters: how many weights the model has; 0 where nothing was written down.
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
    precision: str = ""
    parameters: int = 0
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


_CHECKSUM = re.compile(rb', "checksum": "([0-9a-f]{16})"}$')


def encoded(entry: Entry) -> tuple[bytes, str]:
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


def read_history(raw: bytes) -> History:
    """What a journal of these bytes says."""
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
