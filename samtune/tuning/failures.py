"""When a study has failed too often to go on.

A few failures are a search's daily bread: a width that does not fit into memory, a learning rate at
which a model raises. What tells a broken study is that failures are most of what happens.
"""

from __future__ import annotations

import re
from collections import Counter

from samtune.study.trial_folder import FAILED_STATES, EndState

SAME_REASON = 3
FEWEST = 5  # ended trials, before their share says anything


class Failures:
    """Counts how the trials of one session end.

    Args:
        most_in_a_row: so many failed trials one after another end the study.
        greatest_share: of the ended trials; more failed ones end the study.
    """

    def __init__(self, most_in_a_row: int, greatest_share: float) -> None:
        self.count = 0
        self._most_in_a_row = most_in_a_row
        self._greatest_share = greatest_share
        self._ended = 0
        self._in_a_row = 0
        self._reasons: Counter[str] = Counter()

    def note(self, state: EndState, reason: str) -> None:
        """Takes a trial's end."""
        self._ended += 1
        if state not in FAILED_STATES:
            self._in_a_row = 0
            return
        self.count += 1
        self._in_a_row += 1
        self._reasons[_in_general(reason)] += 1

    @property
    def verdict(self) -> str:
        """Why the study should end, as a clause; empty while it need not."""
        if not self.count:
            return ""
        reason, times = self._reasons.most_common(1)[0]
        if times >= SAME_REASON and 2 * times > self._ended:
            return f"{times} of {self._ended} trials failed in the same way: {reason}"
        if self._in_a_row >= self._most_in_a_row:
            return f"{self._in_a_row} trials failed in a row"
        if self._ended >= FEWEST and self.count > self._greatest_share * self._ended:
            return f"{self.count} of {self._ended} trials failed"
        return ""


def _in_general(reason: str) -> str:
    """A reason without what differs from trial to trial: numbers, addresses, process ids."""
    return re.sub(r"0x[0-9a-f]+|\d[\d.,]*", "N", reason)
