"""The search space in Optuna's words, and as a unit cube.

To Optuna a choice is its index: some samplers cannot hold lists, and no name is lost by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from samtune.config.schema import StudyConfig
from samtune.config.space import Choice, Distribution, FloatRange, IntRange


def to_optuna(distribution: Distribution) -> BaseDistribution:
    """The same distribution as an Optuna one."""
    match distribution:
        case FloatRange(bounds=(low, high), step=step, log=log):
            return FloatDistribution(low, high, log=log, step=step)
        case IntRange(bounds=(low, high), step=step, log=log):
            return IntDistribution(low, high, log=log, step=step or 1)
        case Choice(choice=choices):
            return CategoricalDistribution(range(len(choices)))
    raise AssertionError(distribution)


def draw(trial: optuna.Trial, config: StudyConfig) -> dict[str, Any]:
    """Values for every parameter whose condition holds, by path."""
    values: dict[str, Any] = {}
    for path in config.search_space:
        found = config.active(path, values)
        if found is None:
            continue
        name, distribution = found
        match distribution:
            case FloatRange(bounds=(low, high), step=step, log=log):
                values[path] = trial.suggest_float(name, low, high, step=step, log=log)
            case IntRange(bounds=(low, high), step=step, log=log):
                values[path] = trial.suggest_int(name, low, high, step=step or 1, log=log)
            case Choice(choice=choices):
                values[path] = choices[trial.suggest_categorical(name, range(len(choices)))]
    return values


def named(
    config: StudyConfig, values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    """Values by Optuna's names, with their distributions: what `create_trial` wants."""
    params: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    for path in config.search_space:
        found = config.active(path, values)
        if found is not None and path in values:
            name, distribution = found
            params[name] = values[path]
            if isinstance(distribution, Choice):
                params[name] = _index(distribution.choice, values[path])
            distributions[name] = to_optuna(distribution)
    return params, distributions


def _index(choices: Sequence[Any], value: Any) -> int:
    """Where a value is among the choices, of which `1`, `1.0` and `true` may be three."""
    written = [repr(choice) for choice in choices]
    return written.index(repr(value)) if repr(value) in written else list(choices).index(value)


def coordinates(config: StudyConfig) -> dict[str, Distribution]:
    """Every distribution of the space by its name: the axes of the unit cube of all points."""
    return {
        config.name_of(path, i): distribution
        for path, distributions in config.search_space.items()
        for i, distribution in enumerate(distributions)
    }


def values_at(config: StudyConfig, point: Mapping[str, float]) -> dict[str, Any]:
    """The values at a point of the unit cube, for every parameter whose condition holds."""
    values: dict[str, Any] = {}
    for path in config.search_space:
        found = config.active(path, values)
        if found is not None:
            name, distribution = found
            values[path] = from_unit(distribution, float(point[name]))
    return values


def from_unit(distribution: Distribution, share: float) -> Any:
    """The value at this share of a distribution, from 0 to 1."""
    match distribution:
        case Choice(choice=choices):
            return choices[min(int(share * len(choices)), len(choices) - 1)]
        case FloatRange(bounds=(low, high), step=None, log=log):
            value = low * (high / low) ** share if log else low + share * (high - low)
            return float(min(max(value, low), high))
        case FloatRange(bounds=(low, high), step=step) if step is not None:
            steps = round((high - low) / step)
            return float(min(low + min(int(share * (steps + 1)), steps) * step, high))
        case IntRange(bounds=(low, high), step=step, log=log):
            if log:
                nearest = round((low - 0.5) * ((high + 0.5) / (low - 0.5)) ** share)
                return min(max(nearest, low), high)
            steps = (high - low) // (step or 1)
            return low + min(int(share * (steps + 1)), steps) * (step or 1)
    raise AssertionError(distribution)


def to_unit(distribution: FloatRange | IntRange, value: float) -> float:
    """Where a value of a range lies, from 0 to 1; of a range in steps, the middle of its share."""
    low, high = distribution.bounds
    if isinstance(distribution, IntRange) and distribution.log:
        low, high = low - 0.5, high + 0.5
    if distribution.log:
        return math.log(value / low) / math.log(high / low)
    step = distribution.step or (1 if isinstance(distribution, IntRange) else 0)
    return float((value - low + step / 2) / (high - low + step))
