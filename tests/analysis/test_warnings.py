"""One small study that earns each warning, and what looks like it and earns none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from samtune.analysis.warnings import images_of, warnings_of
from samtune.study.study import Study
from tests.synthetic import RHO_ALONE, Make, Run

Written = Callable[..., Study]
IMAGES = 1000


def _curve(end: float) -> list[float]:
    """Three epochs; whole numbers of 1,000 images."""
    return [round(x, 3) for x in (end - 0.2, end - 0.1, end)]


def _sound(count: int = 12, top: float = 0.2) -> list[Run]:
    """A parabola over log rho with its top of 0.9 inside the range."""
    return [
        Run({"sam.rho": float(rho)}, _curve(0.9 - 0.1 * math.log10(rho / top) ** 2))
        for rho in np.geomspace(0.011, 0.95, count)
    ]


def _kinds(study: Study) -> list[str]:
    return [warning.kind for warning in warnings_of(study)]


def test_a_sound_study_earns_no_warning(written: Written, study_config: Make) -> None:
    study = written(study_config(RHO_ALONE), _sound(), baseline=_curve(0.6))
    assert warnings_of(study) == []


@pytest.mark.parametrize(("rho", "end"), [(0.011, "lower"), (0.95, "upper")])
def test_a_best_value_at_the_end_of_its_range(
    written: Written, study_config: Make, rho: float, end: str
) -> None:
    study = written(study_config(RHO_ALONE), _sound(top=rho), baseline=_curve(0.6))
    (warning,) = warnings_of(study)
    assert warning.kind == "edge"
    assert f"sam.rho: the best value, {rho:.4g}, is at the {end} end of its range" in (
        warning.sentence
    )


def test_few_trials_for_the_settings_searched(written: Written, study_config: Make) -> None:
    few = ("trials: 4", "trials: 9")
    runs = [Run({**r.values, "optimizer.lr": 0.1}, r.curve) for r in _sound(9)]
    study = written(study_config(few), runs, baseline=_curve(0.6))
    (warning,) = warnings_of(study)
    assert warning.kind == "few_trials"
    assert warning.sentence.startswith("9 trials are few for 2 searched settings")
    assert "Take 10 or more" in warning.sentence


def test_trials_still_to_come_are_not_missing_and_failed_ones_are(
    written: Written, study_config: Make
) -> None:
    config = study_config(RHO_ALONE, ("trials: 4", "trials: 5"))
    runs = _sound(12)[6:9]
    assert "few_trials" not in _kinds(written(config, runs))


def test_failed_trials_are_no_trials(written: Written, study_config: Make) -> None:
    config = study_config(RHO_ALONE, ("trials: 4", "trials: 5"))
    failed = [Run({"sam.rho": 0.3}, [], "failed")]
    assert "few_trials" in _kinds(written(config, [*_sound(12)[5:9], *failed]))


def test_a_space_that_was_searched_through_has_trials_enough(
    written: Written, study_config: Make
) -> None:
    points = ("{float: [0.01, 1.0], log: true}", "{choice: [0.1, 0.2, 0.4]}")
    config = study_config(RHO_ALONE, points, ("trials: 4", "trials: 3, sampler: grid"))
    runs = [Run({"sam.rho": rho}, _curve(0.8 + rho / 10)) for rho in (0.1, 0.2, 0.4)]
    assert "few_trials" not in _kinds(written(config, runs))


def _two_settings(written: Written, study_config: Make, effect: float, noise: float) -> Study:
    draw = np.random.default_rng(0)
    runs = []
    for rho in np.geomspace(0.011, 0.95, 24):
        momentum = float(draw.uniform(0.5, 0.95))
        end = 0.9 - 0.1 * math.log10(rho / 0.2) ** 2 + effect * momentum
        end += float(draw.normal(0, noise))
        curve = [end - 0.2 - 1e-6 * len(runs), end - 0.1, end]
        runs.append(Run({"sam.rho": float(rho), "optimizer.momentum": momentum}, curve))
    lr = "optimizer.lr: {float: [0.01, 0.5], log: true}"
    config = study_config((lr, "optimizer.momentum: {float: [0.5, 0.95]}"))
    return written(config, runs, baseline=[0.3, 0.4, 0.5])


def test_a_setting_without_effect(written: Written, study_config: Make) -> None:
    (warning,) = warnings_of(_two_settings(written, study_config, effect=0.0, noise=1e-4))
    assert warning.kind == "no_effect"
    assert warning.sentence.startswith("optimizer.momentum has no effect: it changes val_accuracy")


@pytest.mark.parametrize(("effect", "noise"), [(0.05, 1e-4), (0.0, 0.03)])
def test_a_small_effect_and_one_that_noise_may_hide_are_not_called_none(
    written: Written, study_config: Make, effect: float, noise: float
) -> None:
    assert "no_effect" not in _kinds(_two_settings(written, study_config, effect, noise))


def _twins(
    values: Sequence[float], start_fraction: float = 0.0
) -> tuple[list[Run], tuple[str, str]]:
    runs = [Run({"sam.rho": rho}, [0.5, 0.6, 0.7]) for rho in values]
    base = ("sam: {rho: 0.3}", f"sam: {{rho: 0.3, start_fraction: {start_fraction}}}")
    return runs, base


def test_trials_that_differ_and_train_alike_to_the_last_bit(
    written: Written, study_config: Make
) -> None:
    runs, _ = _twins([0.1, 0.4])
    study = written(study_config(RHO_ALONE), [*_sound(), *runs], baseline=_curve(0.6))
    (warning,) = warnings_of(study)
    assert warning.kind == "equal_trials"
    assert warning.sentence.startswith(
        "t0013 and t0014 differ in sam.rho, and their first 3 epochs are equal"
    )


def test_trials_with_the_same_settings_may_train_alike(
    written: Written, study_config: Make
) -> None:
    runs, _ = _twins([0.1, 0.1])
    study = written(study_config(RHO_ALONE), [*_sound(), *runs], baseline=_curve(0.6))
    assert warnings_of(study) == []


@pytest.mark.parametrize(("start_fraction", "kinds"), [(0.0, ["equal_trials"]), (0.5, [])])
def test_before_sam_starts_trials_are_alike_whatever_their_rho(
    written: Written, study_config: Make, start_fraction: float, kinds: list[str]
) -> None:
    _, base = _twins([], start_fraction)
    stopped = [Run({"sam.rho": rho}, [0.5], "stopped") for rho in (0.1, 0.4)]
    study = written(study_config(RHO_ALONE, base), [*_sound(), *stopped], baseline=_curve(0.6))
    assert _kinds(study) == kinds


@pytest.mark.parametrize(("baseline", "kinds"), [(0.88, ["small_split"]), (0.85, [])])
def test_a_gain_within_the_error_of_the_split(
    written: Written, study_config: Make, baseline: float, kinds: list[str]
) -> None:
    """Of 1,000 images the error of 0.9 - 0.88 is 0.028 (95 %), and that of 0.9 - 0.85 is 0.029."""
    study = written(study_config(RHO_ALONE), _sound(), baseline=_curve(baseline))
    assert images_of(study) == IMAGES
    assert _kinds(study) == kinds
    if kinds:
        assert "The validation split of 1,000 images is too small" in (
            warnings_of(study)[0].sentence
        )


def test_what_is_no_share_of_images_tells_no_size(written: Written, study_config: Make) -> None:
    study = written(study_config(RHO_ALONE), [Run({"sam.rho": 0.1}, [math.pi / 4])])
    assert images_of(study) is None


def test_a_baseline_that_was_never_stopped_and_wins(written: Written, study_config: Make) -> None:
    config = study_config(RHO_ALONE, ("study: {", "study: {select: last, "))
    sound = _sound()
    stopped = [Run(r.values, r.curve[:1], "stopped") for r in sound[:7]]
    study = written(config, [*stopped, *sound[7:]], baseline=_curve(0.95))
    (warning,) = warnings_of(study)
    assert warning.kind == "baseline"
    assert "7 of 12 trials with SAM were" in warning.sentence
    assert "against its 3 epochs" in warning.sentence


def test_a_baseline_that_loses_to_trials_of_its_own_length_is_fair(
    written: Written, study_config: Make
) -> None:
    config = study_config(RHO_ALONE, ("study: {", "study: {select: last, "))
    sound = _sound()
    stopped = [Run(r.values, r.curve[:1], "stopped") for r in sound[:7]]
    study = written(config, [*stopped, *sound[7:]], baseline=_curve(0.6))
    assert warnings_of(study) == []


def test_a_baseline_with_fewer_epochs_than_its_victor(written: Written, study_config: Make) -> None:
    study = written(study_config(RHO_ALONE), _sound(), baseline=[0.5, 0.6])
    (warning,) = warnings_of(study)
    assert warning.kind == "baseline"
    assert warning.sentence.startswith("The baseline has 2 epochs and t0")
