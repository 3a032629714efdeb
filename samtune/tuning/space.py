"""The search space in Optuna's words."""

from __future__ import annotations

from collections.abc import Mapping
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
            return CategoricalDistribution(choices)
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
                values[path] = trial.suggest_categorical(name, choices)
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
            distributions[name] = to_optuna(distribution)
    return params, distributions
