"""Samplers without memory: what they propose follows from the trials before, by their numbers.

Optuna's own CMA-ES and quasi-Monte Carlo keep where they are in a study's attributes,
which a study that is read from its folder does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cmaes
import numpy as np
from optuna.trial import FrozenTrial

from samtune.config.schema import StudyConfig
from samtune.config.space import Choice
from samtune.tuning.space import coordinates, to_unit, values_at


def sobol(config: StudyConfig, number: int) -> dict[str, Any]:
    """The values at the trial's own place in the study's scrambled Sobol sequence."""
    from scipy.stats import qmc  # slow to import

    names = list(coordinates(config))
    sequence = qmc.Sobol(len(names), scramble=True, seed=config.study.seed)
    if number:
        sequence.fast_forward(number)
    return values_at(config, dict(zip(names, sequence.random(1)[0], strict=True)))


def cma_es(
    config: StudyConfig, ended: Sequence[FrozenTrial], first: int, seed: int
) -> dict[str, Any]:
    """Values from CMA-ES (Hansen 2016, arXiv:1604.00772); choices are drawn at random.

    It begins where the first trials were best, and as wide as the best of them lie apart (Nomura et
    al. 2021, arXiv:2012.06932): from the middle of the space it needed more epochs than random
    search. A generation is as many ended trials as the population is large, by their numbers.

    Args:
        ended: what to learn from, each with a value.
        first: how many of them it begins from.
    """
    axes = coordinates(config)
    point = dict(zip(axes, np.random.default_rng(seed).random(len(axes)), strict=True))
    ranges = {name: axis for name, axis in axes.items() if not isinstance(axis, Choice)}
    if not ranges:
        return values_at(config, point)
    sign = -1 if config.mode == "max" else 1
    solutions = [
        (np.array([to_unit(a, t.params[n]) for n, a in ranges.items()]), sign * t.values[0])
        for t in ended
    ]
    mean, sigma, covariance = cmaes.get_warm_start_mgd(solutions[:first], gamma=0.3)
    strategy = cmaes.CMA(
        mean=mean,
        sigma=sigma,
        cov=covariance,
        bounds=np.array([[0.0, 1.0]] * len(ranges)),
        seed=seed,
    )
    size = strategy.population_size
    for begin in range(first, len(solutions) - size + 1, size):
        strategy.tell(solutions[begin : begin + size])
    point.update(zip(ranges, strategy.ask(), strict=True))
    return values_at(config, point)
