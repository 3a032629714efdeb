"""A sampler's part where nothing is drawn: trials with settings that are known beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from samtune.study.trial_folder import EndState


class FixedRuns:
    """Hands out given settings in order, each once; what ended or goes on is not handed out anew.

    It goes by the settings and not by keys: a trial that is set aside, being damaged, is so run
    again under another key.
    """

    def __init__(self, runs: Sequence[Mapping[str, Any]]) -> None:
        self._left = [dict(run) for run in runs]

    def ask(self, key: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The next settings, by path; a confirmation gives none of its own."""
        return self._left.pop(0)

    def take_up(self, key: str, values: Mapping[str, Any]) -> None:
        """A trial of an earlier session that goes on."""
        self._left.remove(dict(values))

    def add_ended(
        self,
        values: Mapping[str, Any],
        state: EndState,
        value: float | None,
        intermediate_values: dict[int, float],
    ) -> None:
        """A trial that ended in an earlier session."""
        self._left.remove(dict(values))

    def report(self, key: str, epoch: int, value: float) -> None:
        """Nothing is learned."""

    def tell(self, key: str, state: EndState, value: float | None) -> None:
        """Nothing is learned."""
