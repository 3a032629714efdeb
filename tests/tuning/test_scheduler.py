"""The rules that stop trials, held against Ray's own and against arithmetic."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from samtune.config.schema import SchedulerConfig
from samtune.tuning.scheduler import Asha, Hyperband, Median, new_scheduler, percentile


def test_rungs_are_the_grace_epochs_times_powers_of_the_reduction_factor() -> None:
    def rungs(grace_epochs: int, reduction_factor: int, epochs: int) -> list[int]:
        config = SchedulerConfig(grace_epochs=grace_epochs, reduction_factor=reduction_factor)
        return config.rung_epochs(epochs)

    assert rungs(1, 3, 27) == [1, 3, 9]
    assert rungs(2, 3, 20) == [2, 6, 18]
    assert rungs(5, 2, 20) == [5, 10]
    assert rungs(4, 2, 4) == []
    assert SchedulerConfig(name="median").rung_epochs(20) == []


@pytest.mark.parametrize(
    ("epochs", "grace", "rungs"),
    [(1, 1, []), (5, 5, []), (6, 5, [5]), (15, 5, [5]), (20, 5, [5, 15]), (30, 8, [8, 24])],
)
def test_by_default_nobody_is_stopped_in_the_first_quarter_nor_in_the_first_five_epochs(
    epochs: int, grace: int, rungs: list[int]
) -> None:
    config = SchedulerConfig()
    assert config.grace(epochs) == grace
    assert config.rung_epochs(epochs) == rungs
    median = new_scheduler(SchedulerConfig(name="median"), epochs, "max")
    for epoch in range(1, epochs + 1):
        assert median.goes_on("a", epoch, 0.9)
        assert median.goes_on("b", epoch, 0.9)
        assert median.goes_on("weak", epoch, 0.1) == (epoch < grace)


def test_asha_by_hand() -> None:
    asha = Asha([1, 2], 2, "max")
    assert asha.goes_on("a", 1, 0.5)  # the first to arrive always goes on
    assert not asha.goes_on("b", 1, 0.4)  # below the median of {0.5}
    assert asha.goes_on("c", 1, 0.45)  # the median of {0.5, 0.4}
    assert asha.goes_on("a", 3, 0.0)  # between rungs nobody is compared
    assert Asha([1, 2], 2, "min").goes_on("a", 1, 9.0)


class _Trial:
    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


@pytest.mark.parametrize(("mode", "seed"), [("max", 0), ("min", 1), ("max", 2)])
def test_asha_decides_as_rays_scheduler_on_finite_values(mode: Any, seed: int) -> None:
    from ray.tune.schedulers import ASHAScheduler

    random = np.random.default_rng(seed)
    ours = Asha([2, 6, 18], 3, mode)
    rays: Any = ASHAScheduler(
        time_attr="epoch", metric="m", mode=mode, max_t=20, grace_period=2, reduction_factor=3
    )
    rays._stop_last_trials = False
    running = {f"t{i}": 0 for i in range(40)}
    trials = {key: _Trial(key) for key in running}
    for trial in trials.values():
        rays.on_trial_add(None, trial)
    stopped = 0
    while running:
        key = str(random.choice(list(running)))
        running[key] += 1
        epoch, value = running[key], float(random.random())
        goes_on = ours.goes_on(key, epoch, value)
        decision = rays.on_trial_result(None, trials[key], {"epoch": epoch, "m": value})
        if epoch < 20:
            assert (decision == "CONTINUE") == goes_on
        if not goes_on or epoch == 20:
            del running[key]
            stopped += not goes_on
    assert 15 < stopped < 40


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_leaves_no_trace(poison: float) -> None:
    asha = Asha([1, 2], 2, "max")
    assert asha.goes_on("bad", 1, poison)
    assert asha.rungs[1] == {}
    asha.goes_on("a", 1, 0.5)
    assert not asha.goes_on("b", 1, 0.1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Asha([1, 2, 4], 2, "max"),
        lambda: Hyperband([1, 2, 4], 2, "max"),
        lambda: Median(1, "max"),
    ],
)
def test_telling_the_journal_again_rebuilds_the_rule(make: Any) -> None:
    random = np.random.default_rng(3)
    told = [(f"t{i:04d}", e, float(random.random())) for e in (1, 2, 4) for i in range(8)]
    first, second = make(), make()
    for record in told:
        first.goes_on(*record)
    for record in sorted(told):  # trial by trial, as the folder is read
        second.goes_on(*record)
    for i, value in enumerate(random.random(20)):
        record = (f"t{i + 8:04d}", 1, float(value))
        assert first.goes_on(*record) == second.goes_on(*record)
    assert first.goes_on(*told[0])  # what was decided once is not decided again


def test_median_by_hand() -> None:
    median = Median(2, "max")
    for key, values in {"a": [0.4, 0.6], "b": [0.6, 0.8]}.items():
        for epoch, value in enumerate(values, 1):
            assert median.goes_on(key, epoch, value)
    # The running averages at epoch 2 are 0.5 and 0.7, their median is 0.6.
    assert median.goes_on("c", 1, 0.1)  # within the grace epochs
    assert not median.goes_on("c", 2, 0.59)
    assert median.goes_on("d", 1, 0.65)
    assert median.goes_on("d", 2, 0.1)  # its best value so far counts


def test_hyperbands_brackets_begin_a_rung_later_each_and_as_many_trials_as_hyperbands() -> None:
    hyperband = Hyperband([1, 3, 9], 3, "max")
    assert [list(b.rungs) for b in hyperband.brackets] == [[1, 3, 9], [3, 9], [9], []]
    # 27/4, 9/3, 3/2 and 1 for a trial that runs to its end.
    begun = Counter(hyperband.bracket(f"t{number:04d}") for number in range(1, 4901))
    assert [begun[i] for i in range(4)] == pytest.approx([2700, 1200, 600, 400], abs=3)


def test_hyperband_compares_within_a_bracket_only_and_its_last_stops_nobody() -> None:
    hyperband = Hyperband([1], 2, "max")
    in_bracket: dict[int, list[str]] = {0: [], 1: []}
    for number in range(1, 20):
        in_bracket[hyperband.bracket(f"t{number:04d}")].append(f"t{number:04d}")
    first, second = in_bracket[0][:2]
    assert hyperband.goes_on(first, 1, 0.5)
    assert all(hyperband.goes_on(key, 1, 0.1) for key in in_bracket[1])
    assert not hyperband.goes_on(second, 1, 0.4)


def _calls(work: Callable[[], object]) -> int:
    """How many functions are called meanwhile, C's among them."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_an_epoch_costs_the_same_whatever_number_of_trials_came_before(name: str) -> None:
    config = SchedulerConfig.model_validate({"name": name, "grace_epochs": 1})
    rule = new_scheduler(config, 9, "max")
    random = np.random.default_rng(0)

    def trials(first: int, last: int) -> None:
        for number in range(first, last):
            for epoch in range(1, 10):
                rule.goes_on(f"t{number:04d}", epoch, float(random.random()))

    trials(0, 30)
    early = _calls(lambda: trials(30, 60))
    trials(60, 970)
    assert _calls(lambda: trials(970, 1000)) <= 1.1 * early  # brackets differ a little


def test_the_median_rule_is_its_definition() -> None:
    random = np.random.default_rng(0)
    for mode in ("max", "min"):
        rule, sign = Median(2, mode), 1 if mode == "max" else -1  # type: ignore[arg-type]
        seen: dict[str, list[float]] = {}
        for _ in range(600):
            key = f"t{random.integers(40):04d}"
            curve = seen.setdefault(key, [])
            curve.append(sign * round(float(random.random()), 1))
            epoch = len(curve)
            others = [np.mean(c[:epoch]) for k, c in seen.items() if k != key and len(c) >= epoch]
            expected = epoch < 2 or len(others) < 2 or max(curve) >= np.median(others)
            assert rule.goes_on(key, epoch, sign * curve[-1]) == expected


def test_a_percentile_of_ordered_values_is_numpys_to_the_last_bit() -> None:
    random = np.random.default_rng(0)
    for size in range(1, 60):
        values = sorted(random.random(size).tolist())
        for factor in (2, 3, 4, 5, 7):
            percent = 100 * (1 - 1 / factor)
            assert percentile(values, percent) == np.percentile(values, percent)
