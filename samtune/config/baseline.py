"""The tuned baseline of a study: the optimizer alone, its own settings searched as SAM's were.

It is a study of its own, NAME-baseline, made from the search: what that draws but `sam.*`, with
rho = 0, by the same sampler and scheduler, in as many trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from samtune.config.schema import BaselineOf, StudyConfig
from samtune.config.space import Distribution
from samtune.config.trial import TrialConfig

# What the search alone was given; as many trials are budget enough for the baseline.
OF_THE_SEARCH = (
    "metrics",
    "warm_start",
    "time_budget",
    "device_budget",
    "gradient_budget",
    "target",
    "register_model",
)


def baseline_name(name: str) -> str:
    """What the tuned baseline of a study is called."""
    return f"{name}-baseline"


def without_sam(
    space: Mapping[str, Sequence[Distribution]], trial: TrialConfig
) -> dict[str, list[Distribution]]:
    """What can be drawn where SAM is not: conditions on it hold as they do for the base trial."""
    found: dict[str, list[Distribution]] = {}
    for path, distributions in space.items():
        if path.startswith("sam."):
            continue
        left = [changed for d in distributions if (changed := _at_base(d, trial)) is not None]
        if left:
            found[path] = left
    return found


def baseline_study(config: StudyConfig, study_id: str, trials: int) -> StudyConfig:
    """The study that tunes the optimizer alone.

    Args:
        config: the search's.
        study_id: whose baseline it is.
        trials: how many the search has begun.
    """
    sam = config.trial.sam.model_copy(update={"rho": 0.0})
    space = without_sam(config.search_space, config.trial)
    defaults = {name: type(config.study).model_fields[name].default for name in OF_THE_SEARCH}
    new = config.model_copy(
        update={
            "name": baseline_name(config.name),
            "trial": config.trial.model_copy(update={"sam": sam}),
            "search_space": space,
            "baseline_of": BaselineOf(study=config.name, study_id=study_id),
        }
    )
    changed = {
        **defaults,
        "register_model": False,
        "baseline": False,
        "trials": trials,
        "try_first": _to_try(new, config.study.try_first)[:trials],
    }
    return new.model_copy(update={"study": config.study.model_copy(update=changed)})


def _at_base(distribution: Distribution, trial: TrialConfig) -> Distribution | None:
    """A distribution without its conditions on `sam.*`; None where they do not hold at the base."""
    when = distribution.when or {}
    of_sam = {path: allowed for path, allowed in when.items() if path.startswith("sam.")}
    held = distribution.model_copy(update={"when": of_sam})
    if not held.applies({path: trial.value_of(path) for path in of_sam}):
        return None
    rest = {path: allowed for path, allowed in when.items() if path not in of_sam}
    return distribution.model_copy(update={"when": rest or None})


def _to_try(config: StudyConfig, first: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The settings tried first that the baseline can draw, each once."""
    found: list[dict[str, Any]] = []
    for values in first:
        rest = {
            path: value
            for path, value in values.items()
            if (drawn := config.active(path, values)) and drawn[1].contains(value)
        }
        if rest and rest not in found:
            found.append(rest)
    return found
