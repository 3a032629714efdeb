"""What Optuna is told is the truth."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from samtune.config.schema import StudyConfig
from samtune.tuning.sampler import Sampler

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
    assert _states(sampler) == ["COMPLETE", "PRUNED", "PRUNED", "FAIL", "FAIL"]
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


@pytest.mark.parametrize("name", ["tpe", "random", "qmc", "cmaes", "gp", "nsga2"])
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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["tpe", "random", "gp", "grid"])
@pytest.mark.parametrize("drawn", [1, 12, 15])
def test_a_study_that_was_resumed_draws_what_it_would_have_drawn(
    study_config: Make, name: str, drawn: int
) -> None:
    changes = [("study: {", f"study: {{sampler: {name}, ")]
    if name == "grid":
        space = "sam.rho: {float: [0.1, 1.0], step: 0.1}"
        changes += [
            ("sam.rho: {float: [0.01, 1.0], log: true}", space),
            ("optimizer.lr: {float: [0.01, 0.5], log: true}", "model.width_factor: {int: [1, 2]}"),
        ]
    config = study_config(*changes)

    def go_on(sampler: Sampler, first: int, last: int) -> list[dict[str, Any]]:
        drawn = []
        for number in range(first, last + 1):
            drawn.append(sampler.ask(f"t{number:04d}"))
            sampler.tell(f"t{number:04d}", "finished", drawn[-1]["sam.rho"])
        return drawn

    whole = go_on(Sampler(config), 1, 18)
    resumed = Sampler(config)
    for values in whole[:drawn]:
        resumed.add_ended(values, "finished", values["sam.rho"], {})
    assert go_on(resumed, drawn + 1, 18) == whole[drawn:]


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


def test_conditional_parameters_are_drawn_only_where_they_apply(study_config: Make) -> None:
    space = (
        "sam.variant: {choice: [asam, sam]}\n"
        "  sam.rho:\n"
        "    - {float: [0.01, 0.1], when: {sam.variant: sam}}\n"
        "    - {float: [1.0, 2.0], when: {sam.variant: asam}}\n"
    )
    config = study_config(("sam.rho: {float: [0.01, 1.0], log: true}\n", space))
    sampler = Sampler(config)
    for i in range(30):
        values = sampler.ask(f"t{i}")
        low, high = (1.0, 2.0) if values["sam.variant"] == "asam" else (0.01, 0.1)
        assert low <= values["sam.rho"] <= high
        sampler.tell(f"t{i}", "finished", values["sam.rho"])


def test_the_direction_follows_the_metric(study_config: Make) -> None:
    loss = study_config(("study: {", "study: {metric: val_loss, "))
    assert Sampler(loss).study.direction is optuna.study.StudyDirection.MINIMIZE
    assert Sampler(study_config()).study.direction is optuna.study.StudyDirection.MAXIMIZE


def _seed(number: int) -> int:
    return int(np.random.SeedSequence([0, number]).generate_state(1)[0])


OPTUNAS_OWN: dict[str, Callable[[int, bool], optuna.samplers.BaseSampler]] = {
    "tpe": lambda number, conditional: optuna.samplers.TPESampler(
        seed=_seed(number), multivariate=True, group=conditional, constant_liar=True
    ),
    "random": lambda number, _: optuna.samplers.RandomSampler(seed=_seed(number)),
    "qmc": lambda *_: optuna.samplers.QMCSampler(seed=_seed(0), scramble=True),
    "cmaes": lambda number, _: optuna.samplers.CmaEsSampler(seed=_seed(number)),
    "gp": lambda number, _: optuna.samplers.GPSampler(seed=_seed(number)),
    "nsga2": lambda number, _: optuna.samplers.NSGAIISampler(seed=_seed(number)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OPTUNAS_OWN)
@pytest.mark.parametrize("conditional", [False, True])
def test_what_is_proposed_is_what_optunas_own_sampler_proposes(
    study_config: Make, name: str, conditional: bool
) -> None:
    """After as many ended trials as it learns from, and beside running ones, for the same seed."""
    if conditional and name == "cmaes":
        return  # refused when the study file is read
    space = (
        "sam.rho:\n"
        "    - {float: [0.01, 0.1], log: true, when: {sam.variant: sam}}\n"
        "    - {float: [0.5, 2.0], log: true, when: {sam.variant: asam}}\n"
        "  sam.variant: {choice: [asam, sam]}\n"
    )
    changes = [("study: {", f"study: {{sampler: {name}, ")]
    if conditional:
        changes.append(("sam.rho: {float: [0.01, 1.0], log: true}\n", space))
    config = study_config(*changes)
    sampler = Sampler(config)
    oracle = optuna.create_study(direction="maximize")
    distributions: dict[str, optuna.distributions.BaseDistribution] = {}
    ended = 66 if name == "nsga2" else 16
    for i in range(ended + 4):
        sampler.ask(f"t{i}")
        ours = sampler.study.trials[-1]
        oracle.sampler = OPTUNAS_OWN[name](i, conditional)
        theirs = oracle.ask()
        for parameter, distribution in ours.distributions.items():
            theirs._suggest(parameter, distribution)
        assert oracle.trials[-1].params == ours.params, f"trial {i}"
        distributions |= ours.distributions
        if i >= ended:
            continue  # they stay running
        value = -sum(math.log(v) ** 2 for v in ours.params.values() if isinstance(v, float))
        for epoch in (1, 2):
            sampler.report(f"t{i}", epoch, value - 1 / epoch)
            theirs.report(value - 1 / epoch, epoch)
        if i % 5 == 3:
            sampler.tell(f"t{i}", "stopped", value)
            oracle.tell(theirs, state=TrialState.PRUNED)
        else:
            sampler.tell(f"t{i}", "finished", value)
            oracle.tell(theirs, value)
