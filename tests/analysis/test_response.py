"""The recommendation on studies whose best rho is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from samtune.analysis.response import response
from samtune.analysis.scores import scored
from samtune.study.study import Study
from tests.synthetic import RHO_ALONE, Make, Run

Written = Callable[..., Study]
NOISE = 0.004


def _rhos(count: int) -> list[float]:
    return [float(rho) for rho in np.geomspace(0.01, 1.0, count)]


def _rising(end: float) -> list[float]:
    """Three epochs that gain 0.1 each."""
    return [end - 0.2, end - 0.1, end]


def _peak(rho: float, at: float, seed: int) -> float:
    """A parabola over log rho with its top of 0.9 at `at`; a decade away it is 0.8."""
    noise = float(np.random.default_rng(seed).normal(0, NOISE))
    return 0.9 - 0.1 * math.log10(rho / at) ** 2 + noise


def test_the_middle_of_the_plateau_is_near_the_known_best_rho(
    written: Written, study_config: Make
) -> None:
    runs = [Run({"sam.rho": rho}, _rising(_peak(rho, 0.2, i))) for i, rho in enumerate(_rhos(16))]
    found = response(written(study_config(RHO_ALONE), runs))
    assert found is not None
    assert found.band is not None
    assert found.rho == found.band.recommended == pytest.approx(0.2, rel=0.3)
    assert found.p_value is not None
    assert found.p_value < 0.01
    low, high = found.band.plateau
    assert 0.05 < low < found.rho < high < 0.8
    assert found.rho == pytest.approx(math.sqrt(low * high), rel=0.05)
    best = int(np.argmax(found.band.mean))
    least = found.band.mean[best] - found.band.standard_error[best]
    inside = [r for r, m in zip(found.band.rho, found.band.mean, strict=True) if m >= least]
    assert found.band.plateau == (inside[0], inside[-1])
    assert found.band.value == pytest.approx(0.9, abs=3 * NOISE)
    assert found.sentence.startswith(f"Recommended rho {found.rho:.2g}: val_accuracy 0.")


def test_a_loss_is_recommended_where_it_is_least(written: Written, study_config: Make) -> None:
    runs = [Run({"sam.rho": rho}, _rising(_peak(rho, 0.2, i))) for i, rho in enumerate(_rhos(16))]
    config = study_config(RHO_ALONE, ("study: {", "study: {metric: val_loss, "))
    found = response(written(config, runs))
    assert found is not None
    assert found.rho == pytest.approx(0.2, rel=0.3)
    assert found.band is not None
    assert found.band.value == pytest.approx(1.1, abs=3 * NOISE)


@pytest.mark.parametrize(("metric", "best_possible"), [("val_accuracy", 1.0), ("val_loss", 0.0)])
def test_no_more_is_expected_than_there_can_be(
    written: Written, study_config: Make, metric: str, best_possible: float
) -> None:
    """Every image is right from a rho of 0.1 on: a smooth curve through that overshoots."""
    ends = [min(1.0, 1.0 + 0.2 * math.log10(rho / 0.1)) for rho in _rhos(16)]
    if metric == "val_loss":  # which is 2 - val_accuracy here
        ends = [1 + end for end in ends]
    runs = [Run({"sam.rho": rho}, _rising(end)) for rho, end in zip(_rhos(16), ends, strict=True)]
    config = study_config(RHO_ALONE, ("study: {", f"study: {{metric: {metric}, "))
    found = response(written(config, runs))
    assert found is not None
    assert found.band is not None
    assert found.band.value == best_possible
    assert (max if metric == "val_accuracy" else min)(found.band.mean) == best_possible
    assert found.band.plateau[1] == pytest.approx(1.0)


def test_the_band_holds_the_truth_about_as_often_as_it_says(
    written: Written, study_config: Make
) -> None:
    runs = [Run({"sam.rho": rho}, _rising(_peak(rho, 0.2, i))) for i, rho in enumerate(_rhos(30))]
    found = response(written(study_config(RHO_ALONE), runs))
    assert found is not None
    assert found.band is not None
    truth = np.array([0.9 - 0.1 * math.log10(rho / 0.2) ** 2 for rho in found.band.rho])
    error = np.abs(truth - np.array(found.band.mean)) / np.array(found.band.standard_error)
    assert float(np.mean(error < 3)) > 0.9
    assert max(found.band.standard_error) < 0.02


def test_where_rho_does_not_matter_none_is_recommended(
    written: Written, study_config: Make
) -> None:
    noise = np.random.default_rng(3).normal(0, NOISE, 16)
    runs = [
        Run({"sam.rho": rho}, _rising(0.9 + float(e)))
        for rho, e in zip(_rhos(16), noise, strict=True)
    ]
    found = response(written(study_config(RHO_ALONE), runs))
    assert found is not None
    assert found.rho is None
    assert found.p_value is not None
    assert found.p_value > 0.05
    assert found.sentence.startswith("No rho is better than another here: from 0.01 to 1,")


@pytest.mark.parametrize("count", [0, 1, 5])
def test_few_trials_recommend_nothing(written: Written, study_config: Make, count: int) -> None:
    runs = [Run({"sam.rho": rho}, _rising(rho)) for rho in _rhos(10)[:count]]
    found = response(written(study_config(RHO_ALONE), runs))
    assert found is not None
    assert (found.rho, found.band, found.p_value) == (None, None, None)
    if count:
        few = f"Too few trials to recommend a rho: {count} with a score, and 6 are needed."
        assert found.sentence == few
    else:
        assert found.sentence == "No trial has a score yet."


def test_many_trials_at_one_rho_recommend_nothing(written: Written, study_config: Make) -> None:
    runs = [Run({"sam.rho": 0.1 * (1 + i % 2)}, _rising(0.5 + i / 100)) for i in range(12)]
    found = response(written(study_config(RHO_ALONE), runs))
    assert found is not None
    assert found.sentence == "Too few values of rho to recommend one: 2, and 4 are needed."


def test_a_stopped_trial_counts_by_where_it_would_have_come(
    written: Written, study_config: Make
) -> None:
    runs = [
        Run({"sam.rho": 0.1}, [0.5, 0.6, 0.7]),
        Run({"sam.rho": 0.2}, [0.6, 0.7, 0.9]),
        Run({"sam.rho": 0.3}, [0.4], "stopped"),
        Run({"sam.rho": 0.4}, [0.4, 0.5], "stopped"),
        Run({"sam.rho": 0.5}, [0.4], "diverged"),
    ]
    found = scored(written(study_config(RHO_ALONE), runs))
    # The finished ones gained 0.2 and 0.3 after epoch 1, and 0.1 and 0.2 after epoch 2.
    assert [round(s.value, 6) for s in found] == [0.7, 0.9, 0.65, 0.65]
    spread = 0.005 * 1.5  # the variance of two numbers 0.1 apart, and of one more beside their mean
    assert [round(s.variance, 6) for s in found] == [0, 0, spread, spread]


def test_stopping_the_slow_starters_does_not_make_rho_small(
    written: Written, study_config: Make
) -> None:
    """Large rho starts lower and ends higher; what is stopped at the first epoch says little."""
    runs = []
    for i, rho in enumerate(_rhos(18)):
        end = _peak(rho, 0.3, i)
        start = 0.5 - 0.1 * rho
        stopped = i % 3 == 1
        curve = [start] if stopped else [start, (start + end) / 2, end]
        runs.append(Run({"sam.rho": rho}, curve, "stopped" if stopped else "finished"))
    found = response(written(study_config(RHO_ALONE), runs))
    assert found is not None
    assert (found.trials, found.stopped) == (18, 6)
    assert found.rho == pytest.approx(0.3, rel=0.4)


def test_no_rho_is_recommended_where_training_diverges(
    written: Written, study_config: Make
) -> None:
    runs = [
        Run({"sam.rho": rho}, _rising(0.7 + 0.1 * math.log10(rho / 0.01)))
        if rho < 0.3
        else Run({"sam.rho": rho}, [0.5], "diverged")
        for rho in _rhos(16)
    ]
    found = response(written(study_config(RHO_ALONE), runs))
    assert found is not None
    assert found.band is not None
    least = min(rho for rho in _rhos(16) if rho >= 0.3)
    assert found.diverged == sum(rho >= 0.3 for rho in _rhos(16))
    assert found.rho is not None
    assert found.rho <= found.band.rho[-1] < 0.3
    assert found.sentence.endswith(f"trials diverged, the least rho of them {least:.2g}.")


def test_each_width_has_its_own_rho(written: Written, study_config: Make) -> None:
    best = {1: 0.06, 2: 0.4}
    config = study_config(("  optimizer.lr: {float: [0.01, 0.5], log: true}\n", WIDTHS))
    runs = [
        Run(
            {"sam.rho": rho, "model.width_factor": width},
            _rising(_peak(rho, at, 10 * i + width) - 0.05 * (width == 1)),
        )
        for i, rho in enumerate(_rhos(14))
        for width, at in best.items()
    ]
    found = response(written(config, runs))
    assert found is not None
    by_width: dict[Any, float] = {
        band.settings["model.width_factor"]: band.recommended for band in found.slices
    }
    assert by_width == {1: pytest.approx(0.06, rel=0.5), 2: pytest.approx(0.4, rel=0.5)}
    assert found.rho == by_width[2]  # the best trial's width
    assert "at width_factor 2:" in found.sentence


WIDTHS = "  model.width_factor: {choice: [1, 2]}\n"


def test_the_rho_of_another_variant_is_another_measure(
    written: Written, study_config: Make
) -> None:
    config = study_config(
        ("  optimizer.lr: {float: [0.01, 0.5], log: true}\n", ""),
        ("  sam.rho: {float: [0.01, 1.0], log: true}", VARIANTS),
    )
    runs = [
        Run({"sam.variant": variant, "sam.rho": scale * rho}, _rising(_peak(rho, 0.2, i) - less))
        for i, rho in enumerate(_rhos(12))
        for variant, scale, less in (("sam", 1, 0.0), ("asam", 10, 0.1))
    ]
    found = response(written(config, runs))
    assert found is not None
    assert found.trials == 12
    assert found.rho == pytest.approx(0.2, rel=0.4)


VARIANTS = """\
  sam.variant: {choice: [sam, asam]}
  sam.rho:
    - {float: [0.01, 1.0], log: true, when: {sam.variant: sam}}
    - {float: [0.1, 10.0], log: true, when: {sam.variant: asam}}"""


def test_a_study_that_does_not_search_rho_has_no_response(
    written: Written, study_config: Make
) -> None:
    config = study_config(("  sam.rho: {float: [0.01, 1.0], log: true}\n", ""))
    runs = [Run({"optimizer.lr": 0.1}, _rising(0.5))]
    assert response(written(config, runs)) is None


def test_the_same_study_gives_the_same_answer(written: Written, study_config: Make) -> None:
    runs: Sequence[Run] = [
        Run({"sam.rho": rho}, _rising(_peak(rho, 0.2, i))) for i, rho in enumerate(_rhos(8))
    ]
    study = written(study_config(RHO_ALONE), runs)
    assert response(study) == response(study)
