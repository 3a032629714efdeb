"""Lets a share of the trials run on that the trial scheduler would stop, to see if it was right."""

from __future__ import annotations

from samtune.analysis.audit import is_audited
from samtune.study.trial_folder import trial_number
from samtune.tuning.scheduler import TrialScheduler


class Audited:
    """A rule that spares the audited trials.

    What the rule would have stopped is not shown to it any more, so that the other trials are
    judged as they would be without an audit.
    """

    def __init__(self, rule: TrialScheduler, share: float) -> None:
        self._rule = rule
        self._share = share
        self._spared: set[str] = set()

    def goes_on(self, key: str, epoch: int, value: float) -> bool:
        """As the rule says, but always True for an audited trial."""
        if key in self._spared or self._rule.goes_on(key, epoch, value):
            return True
        if is_audited(trial_number(key), self._share):
            self._spared.add(key)
            return True
        return False
