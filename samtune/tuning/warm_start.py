"""Trials of other studies that the sampler learns from before its first draw.

What was learned from is kept in the study's folder, so that a resumed study draws as it would have,
whatever became of the others: trained further, or removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from samtune.config.schema import StudyConfig
from samtune.errors import DamagedFileError, SamtuneError
from samtune.files import read_json, set_aside, write_json
from samtune.study import Study, Trial, open_study
from samtune.study.trial_folder import FAILED_STATES, EndState
from samtune.working_copy import current

WARM_START_FILE = "warm_start.json"


@dataclass(frozen=True)
class PastTrial:
    """What the sampler is told of a trial: its values in this study's space, and how it went."""

    values: dict[str, Any]
    state: EndState
    value: float | None
    curve: dict[int, float]


@dataclass(frozen=True)
class PastStudy:
    """What another study gives.

    Attributes:
        trials: those that ended and lie in this study's space.
        ended: how many ended in all, the baseline apart.
    """

    name: str
    trials: list[PastTrial]
    ended: int

    def __str__(self) -> str:
        return f"{len(self.trials)} of {self.ended} trials of {self.name}"


def past_studies(config: StudyConfig, storage: Path) -> list[PastStudy]:
    """What `study.warm_start` names, in its order; what this study has kept is not read again.

    A trial counts if every setting that is searched here had a value there that could be drawn
    here, whether it was searched there or not.

    Raises:
        SamtuneError: there is no such study in the storage, or its scores do not compare: they are
            of another metric, counted otherwise, or on other data.
    """
    try:
        kept = read_json(current(storage / config.name / WARM_START_FILE), list[PastStudy]) or []
    except DamagedFileError:
        kept = []
    held = {past.name: past for past in kept}
    return [held.get(name) or _past(config, name, storage) for name in config.study.warm_start]


def keep(past: Sequence[PastStudy], root: Path) -> None:
    """Writes down what the study learned from; a damaged file is kept under another name."""
    path = root / WARM_START_FILE
    try:
        if read_json(path, list[PastStudy]) == list(past):
            return
    except DamagedFileError:
        set_aside(path)
    write_json(path, [asdict(one) for one in past])


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
    matching = [
        PastTrial(
            values,
            t.outcome.state,
            t.value,
            {e.epoch: e.metrics[config.study.metric] for e in t.epochs},
        )
        for t in ended
        if t.outcome and (values := values_here(config, t)) is not None
    ]
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
