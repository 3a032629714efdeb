"""Trials of other studies that the sampler learns from before its first draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samtune.config.schema import StudyConfig
from samtune.errors import SamtuneError
from samtune.study import Study, Trial, open_study
from samtune.study.trial_folder import FAILED_STATES


@dataclass(frozen=True)
class PastStudy:
    """What another study gives.

    Attributes:
        trials: those that ended and lie in this study's space, with their values in it.
        ended: how many ended in all, the baseline apart.
    """

    name: str
    trials: list[tuple[Trial, dict[str, Any]]]
    ended: int

    def __str__(self) -> str:
        return f"{len(self.trials)} of {self.ended} trials of {self.name}"


def past_studies(config: StudyConfig, storage: Path) -> list[PastStudy]:
    """What `study.warm_start` names, in its order.

    A trial counts if every setting that is searched here had a value there that could be drawn
    here, whether it was searched there or not.

    Raises:
        SamtuneError: there is no such study in the storage, or its scores do not compare: they are
            of another metric, counted otherwise, or on other data.
    """
    return [_past(config, name, storage) for name in config.study.warm_start]


def _past(config: StudyConfig, name: str, storage: Path) -> PastStudy:
    if name == config.name:
        raise SamtuneError(f"study.warm_start: {name} is this study; name others")
    other = open_study(name, storage)
    for what, theirs, ours in (
        ("study.metric", other.metric, config.study.metric),
        ("study.select", other.config.study.select, config.study.select),
        ("trial.dataset", other.config.trial.dataset, config.trial.dataset),
    ):
        if theirs != ours:
            raise SamtuneError(
                f"study.warm_start: {name} has another {what} than this study, so its scores do "
                "not compare with this one's; leave it out"
            )
    ended = [t for t in _ended(other) if t.state not in FAILED_STATES]
    matching = [(t, values) for t in ended if (values := values_here(config, t)) is not None]
    return PastStudy(name, matching, len(ended))


def _ended(study: Study) -> Iterator[Trial]:
    return (t for t in study.trials if t.outcome and t.epochs and not t.is_baseline)


def values_here(config: StudyConfig, trial: Trial) -> dict[str, Any] | None:
    """The trial's values by the paths of this study's space; None if one could not be drawn."""
    settings = trial.config.model_dump(mode="json")
    values: dict[str, Any] = {}
    for path in config.search_space:
        found = config.active(path, values)
        if found is None:
            continue
        section, _, key = path.partition(".")
        if key not in settings[section] or not found[1].contains(settings[section][key]):
            return None
        values[path] = settings[section][key]
    return values
