"""The `search_space` section: its paths, and that the trial accepts what it allows."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from samtune.config.optimizers import cannot_step, optimizer_class
from samtune.config.problems import Problems, shown
from samtune.config.schema import (
    SamConfig,
    StudyConfig,
    TrainingConfig,
    TrialConfig,
)
from samtune.config.space import DISTRIBUTIONS, Choice, Distribution
from samtune.config.trials import cannot_build, trial_with
from samtune.config.yaml_reader import KeyPath
from samtune.errors import StudyFileError, UnknownNameError, did_you_mean
from samtune.registry import DATASETS, MODELS

MOST_COMBINATIONS = 1024
# Settings that rule each other out in some combinations.
EXCLUSIVE = (
    "sam.variant",
    "sam.micro_ascent",
    "training.ema_decay",
    "training.average_from",
)


def check_space(
    raw: Any, whole: Mapping[str, Any], trial: TrialConfig | None, problems: Problems
) -> dict[str, list[Distribution]]:
    """The distributions by path, every condition before what depends on it."""
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        problems.add(("search_space",), "must map paths such as sam.rho to distributions.")
        return {}
    space: dict[str, list[Distribution]] = {}
    for path, entry in raw.items():
        where: KeyPath = ("search_space", path)
        if problem := _unknown_path(path, whole, raw):
            problems.add(where, problem)
            continue
        found = []
        if entry == []:
            problems.add(where, "needs a distribution.")
        for i, item in enumerate(entry if isinstance(entry, list) else [entry]):
            place = (*where, i) if isinstance(entry, list) else where
            if distribution := _check_distribution(item, place, problems):
                found.append(distribution)
                for condition in distribution.when or {}:
                    if condition not in raw and not _known_path(condition, whole, raw):
                        problems.add(
                            (*place, "when"),
                            f"{condition} is no setting."
                            + did_you_mean(condition, [*raw, *_paths(whole, raw)]),
                        )
        space[path] = found
    if trial is not None and not len(problems):
        _check_values(space, trial, problems)
    ordered = _conditions_first(space, problems)
    if trial is not None and not len(problems):
        _check_optimizers(ordered, trial, problems)
    return ordered


def _check_distribution(raw: Any, place: KeyPath, problems: Problems) -> Distribution | None:
    if isinstance(raw, dict):
        for key, cls in DISTRIBUTIONS.items():
            if key in raw:
                checked: Distribution | None = problems.validate(cls, raw, place)
                return checked
    problems.add(
        place, f"must be {{float: [a, b]}}, {{int: [a, b]}} or {{choice: [...]}}, got {shown(raw)}."
    )
    return None


def _unknown_path(path: str, whole: Mapping[str, Any], raw_space: Mapping[str, Any]) -> str:
    """What is wrong with a path into `trial`, or nothing."""
    if path == "training.epochs":
        return "is the scheduler's budget and cannot be searched; set trial.training.epochs."
    if path == "sam.adaptive":
        return "is a shorthand; search sam.variant: {choice: [sam, asam]} instead."
    if path in ("training.seed", "dataset.name", "dataset.root"):
        return "cannot be searched: trials would not compare."
    if _known_path(path, whole, raw_space):
        return ""
    known = _paths(whole, raw_space)
    return f"trial has no such setting.{did_you_mean(path, known)}"


def _known_path(path: str, whole: Mapping[str, Any], raw_space: Mapping[str, Any]) -> bool:
    known = set(_paths(whole, raw_space))
    return path in known or f"{path.partition('.')[0]}.*" in known


def _paths(whole: Mapping[str, Any], raw_space: Mapping[str, Any]) -> Iterator[str]:
    """Every path into `trial` that a search space may name; `model.*` if the model is unknown."""
    for section, cls in (("sam", SamConfig), ("training", TrainingConfig)):
        yield from (f"{section}.{key}" for key in cls.model_fields)
    trial = whole.get("trial")
    for section, registry in (("model", MODELS), ("dataset", DATASETS)):
        yield f"{section}.name"
        for name in _possible_names(section, trial, raw_space):
            known = registry[name].schema.model_fields if name in registry else ["*"]
            yield from (f"{section}.{key}" for key in known)
    yield "optimizer.name"
    for name in _possible_names("optimizer", trial, raw_space):
        try:
            signature = inspect.signature(optimizer_class(name))
        except UnknownNameError:
            yield "optimizer.*"
            continue
        yield from (f"optimizer.{key}" for key in signature.parameters if key != "params")


def _possible_names(section: str, trial: Any, raw_space: Mapping[str, Any]) -> list[str]:
    names = []
    if isinstance(trial, dict) and isinstance(trial.get(section), dict):
        names.append(trial[section].get("name"))
    entry = raw_space.get(f"{section}.name")
    for choices in entry if isinstance(entry, list) else [entry]:
        if isinstance(choices, dict) and isinstance(choices.get("choice"), list):
            names += choices["choice"]
    return [name for name in names if isinstance(name, str)]


def _check_values(
    space: Mapping[str, list[Distribution]], trial: TrialConfig, problems: Problems
) -> None:
    """Lays each end and choice over the base trial, so that a bad range fails before trial 37."""
    base = StudyConfig.model_construct(name="check", trial=trial)
    for path, distributions in space.items():
        for distribution in distributions:
            needed = {
                key: allowed[0] if isinstance(allowed, list) else allowed
                for key, allowed in (distribution.when or {}).items()
            }
            few = distribution.examples
            for value in few if len(few) <= 64 else (few[0], few[-1]):
                try:
                    changed = trial_with(base, {**needed, path: value})
                except StudyFileError as error:
                    reason = error.problems[0].removeprefix(f"{path}: ")
                    problems.add(("search_space", path), f"allows {value!r}: {reason}")
                    break
                if path.startswith("model.") and (reason := cannot_build(changed.model)):
                    problems.add(("search_space", path), f"allows {value!r}: {reason}.")
                    break


def _check_optimizers(
    space: Mapping[str, list[Distribution]], trial: TrialConfig, problems: Problems
) -> None:
    """Tries each combination of optimizer, variant and what they exclude, of ranges their ends."""
    own = {path for path in space if path.startswith("optimizer.") or path in EXCLUSIVE}
    needed = set(own)
    for path in reversed(list(space)):  # conditions stand before what depends on them
        if path in needed:
            needed |= {c for d in space[path] for c in d.when or {}}
    ends = {path: [_its_ends(d) for d in space[path]] for path in space}
    base = StudyConfig.model_construct(name="check", trial=trial, search_space=ends)
    combinations = base.combinations([path for path in space if path in needed])
    for drawn in itertools.islice(combinations, MOST_COMBINATIONS if own else 0):
        values = {path: value for path, value in drawn.items() if path in own}
        try:
            reason = cannot_step(trial_with(base, values))
        except StudyFileError as error:
            reason = " ".join(error.problems)
        if reason:
            allowed = ", ".join(f"{path} = {shown(value)}" for path, value in values.items())
            problems.add(("search_space",), f"allows {allowed}: {reason.rstrip('.')}.")
            return


def _its_ends(distribution: Distribution) -> Distribution:
    if isinstance(distribution, Choice):
        return distribution
    return Choice(choice=list(distribution.bounds), when=distribution.when)


def _conditions_first(
    space: dict[str, list[Distribution]], problems: Problems
) -> dict[str, list[Distribution]]:
    """The same space in an order in which every condition is drawn before what depends on it."""
    ordered: dict[str, list[Distribution]] = {}
    waiting = dict(space)
    while waiting:
        ready = [
            path
            for path, distributions in waiting.items()
            if not any(c in waiting for d in distributions for c in d.when or {})
        ]
        if not ready:
            problems.add(("search_space",), f"the conditions of {', '.join(waiting)} form a ring.")
            return space
        for path in ready:
            ordered[path] = waiting.pop(path)
    return ordered
