"""What a study may spend, beside a number of trials: once it is spent, no trial is begun any more.

Everything is read off the journals, so that the driver and whoever reads the study agree, and a
resumed study has spent what its earlier sessions did.
"""

from __future__ import annotations

from collections.abc import Mapping

from samtune.config.schema import SearchConfig
from samtune.errors import SamtuneError

GRADIENTS = "gradient_evaluations"  # the journal's name for what an epoch cost in them
MS_PER_HOUR = 3_600_000


class Budget:
    """Adds up what was spent.

    Args:
        search: names the limits.
        mode: whether the metric is better when larger (`max`) or smaller.
    """

    def __init__(self, search: SearchConfig, mode: str) -> None:
        self._search = search
        self._sign = 1 if mode == "max" else -1
        self._sessions: dict[int, tuple[float, float]] = {}  # first start and last end, in ms
        self._trained_s = 0.0
        self._gradients = 0.0
        self._reached = ""

    def note_epoch(
        self, session: int, end_ms: float, duration_s: float, metrics: Mapping[str, float]
    ) -> None:
        """An epoch of any trial, the baseline's too.

        Raises:
            SamtuneError: gradients are to be counted, and its journal has not counted them.
        """
        self._trained_s += duration_s
        if GRADIENTS in metrics:
            self._gradients += metrics[GRADIENTS]
        elif self._search.gradient_budget is not None:
            raise SamtuneError(
                "study.gradient_budget: some epochs of this study were written by an earlier "
                "samtune, which did not count gradients; leave it out, or take device_budget"
            )
        start = end_ms - 1000 * duration_s
        first, last = self._sessions.get(session, (start, end_ms))
        self._sessions[session] = min(first, start), max(last, end_ms)

    def note_value(self, key: str, value: float) -> None:
        """What a trial counts by, where it may be called the best."""
        target = self._search.target
        if target is not None and not self._reached and self._sign * (value - target) >= 0:
            self._reached = f"study.target, {target:g}, is reached by {key}"

    @property
    def hours(self) -> float:
        """From the first epoch's start to the last one's end, over all sessions."""
        return sum(last - first for first, last in self._sessions.values()) / MS_PER_HOUR

    @property
    def spent(self) -> str:
        """Which limit is reached, as a clause; empty while none is."""
        search = self._search
        if search.time_budget is not None and self.hours >= search.time_budget:
            return f"study.time_budget, {search.time_budget:g} hours, is spent"
        trained = self._trained_s / 3600
        if search.device_budget is not None and trained >= search.device_budget:
            return f"study.device_budget, {search.device_budget:g} hours, is spent"
        gradients = search.gradient_budget
        if gradients is not None and self._gradients >= gradients:
            return f"study.gradient_budget, {gradients:,.0f} gradient evaluations, is spent"
        return self._reached
