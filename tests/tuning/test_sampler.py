"""What Optuna is told is the truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from scipy.stats import qmc

from samtune.config.schema import StudyConfig
from samtune.study.trial_folder import EndState
from samtune.tuning.sampler import STARTUP_TRIALS, Sampler

TPES_FIRST = STARTUP_TRIALS["tpe"]

Make = Callable[..., StudyConfig]


def _states(sampler: Sampler) -> list[str]:
    return [t.state.name for t in sampler.study.trials]


def test_each_ending_has_its_state(study_config: Make) -> None:
    sampler = Sampler(study_config())
    endings = ["finished", "stopped", "diverged", "out_of_memory", "failed"]
    for i, state in enumerate(endings):
        key = f"t{i}"
        sampler.ask(key)
        sampler.report(key, 1, 0.5)
        sampler.report(key, 2, math.nan)
        sampler.tell(key, state, 0.7)  # type: ignore[arg-type]
    assert _states(sampler) == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED", "FAIL"]
    assert sampler.study.trials[0].value == 0.7
    assert sampler.study.trials[1].intermediate_values == {1: 0.5}
    assert all(t.state != TrialState.RUNNING for t in sampler.study.trials)


def test_a_finished_trial_without_a_finite_value_is_a_failure(study_config: Make) -> None:
    sampler = Sampler(study_config())
    for key, value in {"t1": math.nan, "t2": None}.items():
        sampler.ask(key)
        sampler.tell(key, "finished", value)
    assert _states(sampler) == ["FAIL", "FAIL"]


def test_a_rebuilt_study_equals_the_one_that_was_lost(study_config: Make) -> None:
    config = study_config()
    first, second = Sampler(config), Sampler(config)
    for key, state in {"t1": "finished", "t2": "stopped"}.items():
        values = first.ask(key)
        for epoch in (1, 2):
            first.report(key, epoch, epoch / 10)
        first.tell(key, state, 0.2)  # type: ignore[arg-type]
        second.add_ended(values, state, 0.2, {1: 0.1, 2: 0.2})  # type: ignore[arg-type]
    for one, other in zip(first.study.trials, second.study.trials, strict=True):
        assert one.params == other.params
        assert one.distributions == other.distributions
        assert (one.state, one.intermediate_values) == (other.state, other.intermediate_values)
        if one.state == TrialState.COMPLETE:
            assert one.value == other.value


def test_a_trial_taken_up_keeps_its_values(study_config: Make) -> None:
    config = study_config()
    values = {"sam.rho": 0.123, "optimizer.lr": 0.04}
    sampler = Sampler(config)
    sampler.take_up("t0001", values)
    sampler.report("t0001", 1, 0.5)
    sampler.tell("t0001", "finished", 0.5)
    (trial,) = sampler.study.trials
    assert trial.params == values
    assert trial.state == TrialState.COMPLETE


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "cmaes", "gp"])
def test_every_sampler_draws_new_values_within_the_space(study_config: Make, name: str) -> None:
    config = study_config(("study: {", f"study: {{sampler: {name}, "))
    sampler = Sampler(config)
    seen = set()
    for i in range(12):
        values = sampler.ask(f"t{i}")
        assert 0.01 <= values["sam.rho"] <= 1.0
        assert 0.01 <= values["optimizer.lr"] <= 0.5
        seen.add(tuple(values.values()))
        sampler.report(f"t{i}", 1, i / 10)
        sampler.tell(f"t{i}", "finished", i / 10)
    assert len(seen) == 12


STEPS = "sam.rho: {float: [0.1, 1.0], step: 0.1}"
WIDTHS = "model.width_factor: {int: [1, 24]}"


def _play(sampler: Sampler, first: int, last: int) -> list[dict[str, Any]]:
    """Three trials at a time; a third finish, a third are stopped, some diverge or fail."""
    drawn = []
    for number in range(first, last + 1):
        drawn.append(sampler.ask(f"t{number:04d}"))
        for epoch in (1, 2, 3)[: 3 - number % 3]:
            sampler.report(f"t{number:04d}", epoch, _value(drawn[-1], epoch))
        ended = f"t{number - 2:04d}"
        if ended in sampler._running:
            running = sampler.study.trials[sampler._running[ended].number]
            sampler.tell(ended, _ending(number - 2), max(running.intermediate_values.values()))
    return drawn


def _ending(number: int) -> EndState:
    if number % 3:
        return "diverged" if number % 7 == 0 else "stopped"
    return "failed" if number % 11 == 0 else "finished"


def _value(values: dict[str, Any], epoch: int) -> float:
    return float(1 - math.log(values["sam.rho"] / 0.3) ** 2 / 20 - 0.1 / epoch)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "trials"),
    [
        *((name, 40) for name in ("random", "qmc", "cmaes", "tpe", "grid")),
        *(
            pytest.param(name, 200, marks=pytest.mark.slow)
            for name in ("random", "qmc", "cmaes", "tpe", "grid")
        ),
        ("gp", 20),  # a draw of its 200th trial takes half a second
    ],
)
def test_a_study_that_was_resumed_in_the_middle_draws_what_it_would_have_drawn(
    study_config: Make, name: str, trials: int
) -> None:
    changes = [("study: {", f"study: {{sampler: {name}, ")]
    if name == "grid":
        changes += [
            ("sam.rho: {float: [0.01, 1.0], log: true}", STEPS),
            ("optimizer.lr: {float: [0.01, 0.5], log: true}", WIDTHS),
        ]
    config = study_config(*changes)
    half = trials // 2
    first = Sampler(config)
    drawn = _play(first, 1, half)
    resumed = Sampler(config)
    for number, values in enumerate(drawn, 1):
        told = first.study.trials[number - 1].intermediate_values
        if f"t{number:04d}" in first._running:
            resumed.take_up(f"t{number:04d}", values)
            for epoch, value in told.items():
                resumed.report(f"t{number:04d}", epoch, value)
        else:
            resumed.add_ended(values, _ending(number), max(told.values()), told)
    later = range(half + 1, trials + 1)
    assert _play(resumed, later[0], later[-1]) == _play(first, later[0], later[-1])


def test_the_grid_is_walked_once(study_config: Make) -> None:
    config = study_config(
        ("study: {", "study: {sampler: grid, "),
        ("sam.rho: {float: [0.01, 1.0], log: true}", "sam.rho: {choice: [0.1, 0.2, 0.3]}"),
        ("optimizer.lr: {float: [0.01, 0.5], log: true}", "model.width_factor: {int: [1, 2]}"),
    )
    sampler = Sampler(config)
    seen = []
    for i in range(6):
        seen.append(tuple(sorted(sampler.ask(f"t{i}").items())))
        sampler.tell(f"t{i}", "finished", 0.5)
    assert len(set(seen)) == 6


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_conditional_parameters_are_drawn_only_where_they_apply(
    study_config: Make, name: str
) -> None:
    space = (
        "sam.variant: {choice: [asam, sam]}\n"
        "  sam.rho:\n"
        "    - {float: [0.01, 0.1], when: {sam.variant: sam}}\n"
        "    - {float: [1.0, 2.0], when: {sam.variant: asam}}\n"
    )
    config = study_config(
        ("sam.rho: {float: [0.01, 1.0], log: true}\n", space),
        ("study: {", f"study: {{sampler: {name}, "),
    )
    sampler = Sampler(config)
    for i in range(20):
        values = sampler.ask(f"t{i}")
        low, high = (1.0, 2.0) if values["sam.variant"] == "asam" else (0.01, 0.1)
        assert low <= values["sam.rho"] <= high
        sampler.report(f"t{i}", 3, values["sam.rho"])
        sampler.tell(f"t{i}", "finished", values["sam.rho"])


def test_the_direction_follows_the_metric(study_config: Make) -> None:
    loss = study_config(("study: {", "study: {metric: val_loss, "))
    assert Sampler(loss).study.direction is optuna.study.StudyDirection.MINIMIZE
    assert Sampler(study_config()).study.direction is optuna.study.StudyDirection.MAXIMIZE


def _seed(number: int) -> int:
    return int(np.random.SeedSequence([0, number]).generate_state(1)[0])


OPTUNAS_OWN: dict[str, Callable[[int, bool], optuna.samplers.BaseSampler]] = {
    "tpe": lambda number, conditional: optuna.samplers.TPESampler(
        seed=_seed(number),
        n_startup_trials=TPES_FIRST,
        multivariate=True,
        group=conditional,
        constant_liar=True,
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OPTUNAS_OWN)
@pytest.mark.parametrize("conditional", [False, True])
def test_what_is_proposed_is_what_optunas_own_sampler_proposes_had_the_stopped_trials_run_on(
    study_config: Make, name: str, conditional: bool
) -> None:
    """Where all curves gain alike; beside running trials, for the same seed."""
    space = (
        "sam.rho:\n"
        "    - {float: [0.01, 0.1], log: true, when: {sam.variant: sam}}\n"
        "    - {float: [0.5, 2.0], log: true, when: {sam.variant: asam}}\n"
        "  sam.variant: {choice: [asam, sam]}\n"
    )
    changes = [("study: {", f"study: {{sampler: {name}, ")]
    if conditional:
        changes.append(("sam.rho: {float: [0.01, 1.0], log: true}\n", space))
    sampler = Sampler(study_config(*changes))
    oracle = optuna.create_study(direction="maximize")
    ended = TPES_FIRST + 6
    for i in range(ended + 4):
        sampler.ask(f"t{i}")
        ours = sampler.study.trials[-1]
        oracle.sampler = OPTUNAS_OWN[name](i, conditional)
        if i >= TPES_FIRST:
            theirs = oracle.ask()
            for parameter, distribution in ours.distributions.items():
                theirs._suggest(parameter, distribution)
            assert oracle.trials[-1].params == pytest.approx(ours.params), f"trial {i}"
            oracle.tell(theirs, state=TrialState.FAIL)
        end = -sum(math.log(v) ** 2 for v in ours.params.values() if isinstance(v, float))
        is_running, is_stopped = i >= ended, i % 5 == 3
        oracle.add_trial(
            optuna.create_trial(
                state=TrialState.RUNNING if is_running else TrialState.COMPLETE,
                value=None if is_running else end,
                params=ours.params,
                distributions=ours.distributions,
            )
        )
        if is_running:
            continue
        for epoch in (1, 2) if is_stopped else (1, 2, 3):
            sampler.report(f"t{i}", epoch, end - 0.5 * (3 - epoch))
        sampler.tell(f"t{i}", "stopped" if is_stopped else "finished", end)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes"])
def test_a_sampler_learns_although_nine_in_ten_trials_are_stopped(
    study_config: Make, name: str
) -> None:
    sampler = Sampler(study_config(("study: {", f"study: {{sampler: {name}, ")))
    distances = []
    for number in range(1, {"gp": 30}.get(name, 60) + 1):
        key = f"t{number:04d}"
        values = sampler.ask(key)
        ends = {"sam.rho": (0.2, math.log(100)), "optimizer.lr": (0.1, math.log(50))}
        distances.append(
            math.dist([0, 0], [math.log(values[p] / at) / w for p, (at, w) in ends.items()])
        )
        is_stopped = number % 10 > 0
        for epoch in (1,) if is_stopped else (1, 2, 3):
            sampler.report(key, epoch, 1 - distances[-1] - 0.3 / epoch)
        sampler.tell(key, "stopped" if is_stopped else "finished", 0.9 - distances[-1])
    assert sampler.study.trials[0].state is TrialState.PRUNED
    # At random it is 0.4 in the mean.
    assert np.mean(distances[-10:]) < 0.25


def test_a_diverged_trial_is_as_bad_as_the_worst(study_config: Make) -> None:
    sampler = Sampler(study_config(("study: {", "study: {sampler: gp, ")))
    for key, (state, value) in {
        "t1": ("finished", 0.5), "t2": ("stopped", 0.2), "t3": ("diverged", 0.9),
        "t4": ("out_of_memory", None), "t5": ("failed", None),
    }.items():  # fmt: skip
        sampler.ask(key)
        if value is not None:
            sampler.report(key, 3, value)
        sampler.tell(key, state, value)  # type: ignore[arg-type]
    assert [t.value for t in sampler._learned().trials] == [0.5, 0.2, 0.2, 0.2]
    assert [list(seen.ends.values())[-1] for seen in sampler._seen()] == [0.5, 0.2, 0.2, 0.2]
    assert _states(sampler) == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED", "FAIL"]


def test_qmc_takes_a_trials_own_point_of_one_scrambled_sobol_sequence(study_config: Make) -> None:
    sampler = Sampler(study_config(("study: {", "study: {sampler: qmc, ")))
    points = qmc.Sobol(2, seed=0).random(16)
    for number in (1, 7, 15):  # whatever came before
        values = sampler.ask(f"t{number:04d}")
        rho, lr = points[number]
        assert values["sam.rho"] == pytest.approx(0.01 * 100**rho)
        assert values["optimizer.lr"] == pytest.approx(0.01 * 50**lr)


LISTS = "model.depth: {choice: [10, 16]}\n  model.width_factor: {choice: [1, 2, 4]}"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["tpe", "random", "grid", "qmc", "cmaes", "gp"])
def test_no_point_is_drawn_twice_until_the_space_is_searched_through(
    study_config: Make, name: str
) -> None:
    config = study_config(
        ("study: {trials: 4", f"study: {{sampler: {name}, trials: 24"),
        (
            "  sam.rho: {float: [0.01, 1.0], log: true}\n",
            "  sam.rho: {float: [0.1, 0.3], step: 0.1}\n",
        ),
        ("optimizer.lr: {float: [0.01, 0.5], log: true}", LISTS),
    )
    assert config.wanted_trials == 18
    sampler = Sampler(config)
    seen = set()
    for i in range(18):
        values = sampler.ask(f"t{i}")
        seen.add((round(values["sam.rho"], 9), values["model.depth"], values["model.width_factor"]))
        sampler.report(f"t{i}", 3, values["sam.rho"])
        sampler.tell(f"t{i}", "finished", values["sam.rho"])
    assert len(seen) == 18


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["tpe", "random", "grid", "qmc", "cmaes", "gp"])
def test_every_sampler_takes_choices_of_lists(study_config: Make, name: str) -> None:
    config = study_config(
        ("study: {", f"study: {{sampler: {name}, "),
        (
            "{name: wide_resnet, depth: 10, width_factor: 1}",
            "{name: resnet, blocks: [1, 1], channels: [16, 32]}",
        ),
        ("sam.rho: {float: [0.01, 1.0], log: true}", "model.blocks: {choice: [[1, 1], [2, 2]]}"),
        (
            "optimizer.lr: {float: [0.01, 0.5], log: true}",
            "sam.rho: {choice: [0.1, 0.2, 0.3, 0.4]}",
        ),
    )
    sampler = Sampler(config)
    drawn = [sampler.ask(f"t{i}") for i in range(8)]
    assert len({str(values) for values in drawn}) == 8
    assert all(values["model.blocks"] in ([1, 1], [2, 2]) for values in drawn)


def test_tpe_learns_from_the_best_and_an_even_share_where_there_are_too_many(
    study_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samtune.tuning.sampler.MOST_LEARNED", 20)
    monkeypatch.setattr("samtune.tuning.sampler.GOOD", 2)
    sampler = Sampler(study_config())
    for i in range(1, 61):
        sampler.add_ended({"sam.rho": 0.01 + i / 1000, "optimizer.lr": 0.1}, "finished", i / 60, {})
    sampler.ask("t0061")
    learned = sampler._learned().trials
    assert [t.state for t in learned][-1] is TrialState.RUNNING
    numbers = [round(t.value * 60) for t in learned[:-1] if t.value is not None]
    assert len(numbers) == 20
    assert numbers[-2:] == [59, 60]  # the good ones
    assert max(b - a for a, b in pairwise(numbers)) == 4  # of 58, eighteen
