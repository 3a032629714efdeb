"""The Gaussian process over settings and epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern

from samtune.config.schema import StudyConfig
from samtune.tuning.gaussian import ANYWHERE, MOST, Process, Seen, _candidates, _thinned, thompson
from tests.synthetic import RHO_ALONE

Make = Callable[..., StudyConfig]


def _rows() -> tuple[Any, Any, Any]:
    random = np.random.default_rng(0)
    inputs = random.random((12, 3))
    outputs = np.sin(5 * inputs[:, 0]) + inputs[:, 2] + 0.1 * random.standard_normal(12)
    return inputs, (outputs - outputs.mean()) / outputs.std(), np.repeat(np.arange(6), 2)


def test_the_gradient_is_the_losss() -> None:
    process = Process(*_rows())
    middle, spread = np.log([0.4, 0.4, 1.0, 1.0, 0.02, 0.01]), np.full(6, 0.7)
    logs = middle + np.linspace(-0.5, 0.5, 6)
    slopes = approx_fprime(logs, lambda x: process._loss(x, middle, spread)[0], 1e-6)
    np.testing.assert_allclose(process._loss(logs, middle, spread)[1], slopes, atol=1e-4)


def test_it_predicts_what_sklearns_process_of_the_same_kernel_predicts() -> None:
    inputs, outputs, _ = _rows()
    alone = np.arange(len(inputs))  # rows of as many trials: both noises are on the diagonal
    process = Process(inputs, outputs, alone)
    there = np.random.default_rng(1).random((5, 3))
    mean, covariance = process.predict(there)
    kernel = ConstantKernel(process._variance, "fixed") * Matern(process._lengths, "fixed", nu=2.5)
    lower = np.tril(process._factor[0])
    noise = (lower @ lower.T)[0, 0] - process._variance
    oracle = GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(inputs, outputs)
    expected, spread = oracle.predict(there, return_cov=True)
    np.testing.assert_allclose(mean, expected, atol=1e-8)
    np.testing.assert_allclose(covariance, spread, atol=1e-8)


def test_of_one_trial_it_learns_no_length() -> None:
    """What the likelihood says nothing of stays at the priors' middle."""
    process = Process(np.full((1, 3), 0.5), np.zeros(1), np.zeros(1, int))
    np.testing.assert_allclose(process._lengths, [0.4, 0.4, 1.0])


def test_a_trial_that_begins_slowly_is_proposed_where_its_like_ended_well(
    study_config: Make,
) -> None:
    """Small rho begins fast and falls, large rho rises: what a stopped trial had misleads."""
    config = study_config(RHO_ALONE, ("study: {", "study: {sampler: gp, "))
    trials = []
    for i, share in enumerate(np.linspace(0, 1, 10)):
        rho = 0.01 * 100**share
        early, late = 0.9 - 0.2 * share, 0.7 + 0.2 * share
        ends = {1: early, 2: (early + late) / 2, 3: late} if i % 3 == 0 else {1: early}
        trials.append(Seen({"sam.rho": rho}, {"sam.rho": rho}, ends))
    proposed = [thompson(config, trials, seed, lambda _: True)["sam.rho"] for seed in range(8)]
    assert np.median(proposed) > 0.1


def test_the_direction_is_the_metrics(study_config: Make) -> None:
    trials = [
        Seen({"sam.rho": rho}, {"sam.rho": rho}, {3: abs(math.log(rho / 0.2))})
        for rho in np.geomspace(0.01, 1, 12).tolist()
    ]
    for metric, near in (("val_loss", True), ("val_accuracy", False)):
        config = study_config(RHO_ALONE, ("study: {", f"study: {{metric: {metric}, "))
        rho = thompson(config, trials, 0, lambda _: True)["sam.rho"]
        assert (0.1 < rho < 0.4) is near


def test_what_is_not_new_is_not_proposed(study_config: Make) -> None:
    config = study_config(RHO_ALONE, ("float: [0.01, 1.0], log: true", "choice: [0.1, 0.2, 0.3]"))
    trials = [
        Seen({"sam.rho": rho}, {"sam.rho": i}, {3: 1 - rho}) for i, rho in enumerate((0.1, 0.2))
    ]
    for seed in range(4):
        values = thompson(config, trials, seed, lambda v: v["sam.rho"] > 0.2)
        assert values == {"sam.rho": 0.3}


def test_candidates_lie_about_the_best_trials_in_their_choices_and_ranges(
    study_config: Make,
) -> None:
    config = study_config(
        ("optimizer.lr: {float: [0.01, 0.5], log: true}", "model.width_factor: {choice: [1, 2, 3]}")
    )
    best = {"sam.rho": 0.3, "model.width_factor": 3}
    centre = Seen(best, {**best, "model.width_factor": 2}, {3: 0.9})
    about = _candidates(config, [centre], np.random.default_rng(0), 0)[ANYWHERE:]
    assert sum(values["model.width_factor"] == 3 for values in about) > 0.8 * len(about)
    away = [math.log(values["sam.rho"] / 0.3) / math.log(100) for values in about]
    assert 0.05 < np.std(away) < 0.2
    assert {values["model.width_factor"] for values in about} > {3}


@pytest.mark.parametrize("count", [5, MOST, 10 * MOST])
def test_many_trials_are_thinned_and_the_better_ones_kept(count: int) -> None:
    trials = [Seen({}, {}, {1: -float(i)}) for i in range(count)]
    kept = _thinned(trials)
    assert len(kept) == min(count, MOST)
    assert kept[: len(kept) * 2 // 3] == trials[: len(kept) * 2 // 3]
    assert len({id(trial) for trial in kept}) == len(kept)
