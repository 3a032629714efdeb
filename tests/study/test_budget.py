"""What is spent is read off the journals, and nothing is begun once a limit is reached."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from samtune.errors import SamtuneError
from samtune.study.budget import Budget
from samtune.study.study import Study
from tests.synthetic import RHO_ALONE, Make, Run

HOUR_MS = 3_600_000


def _budget(study_config: Make, setting: str) -> Budget:
    config = study_config(("study: {", f"study: {{{setting}, "))
    return Budget(config.study, config.mode)


def test_hours_are_those_of_sessions_and_not_of_the_nights_between(study_config: Make) -> None:
    budget = _budget(study_config, "time_budget: 2")
    budget.note_epoch(1, 10 * HOUR_MS, 1800, {})  # half an hour, from 9:30
    budget.note_epoch(1, 10 * HOUR_MS, 3600, {})  # beside it: the session began at 9:00
    assert budget.hours == 1
    budget.note_epoch(2, 30 * HOUR_MS, 3540, {})
    assert not budget.spent
    budget.note_epoch(2, 30.02 * HOUR_MS, 60, {})
    assert budget.spent == "study.time_budget, 2 hours, is spent"


def test_device_hours_are_those_of_all_trials_together(study_config: Make) -> None:
    budget = _budget(study_config, "device_budget: 1.5")
    budget.note_epoch(1, 10 * HOUR_MS, 3600, {})
    assert not budget.spent
    budget.note_epoch(1, 10 * HOUR_MS, 1800, {})
    assert budget.spent == "study.device_budget, 1.5 hours, is spent"


def test_gradient_evaluations_are_those_of_all_epochs_together(study_config: Make) -> None:
    budget = _budget(study_config, "gradient_budget: 3.0e3")
    for gradients in (800.0, 1600.0):  # the baseline's epoch, and one of SAM
        budget.note_epoch(1, 0, 0.1, {"gradient_evaluations": gradients})
        assert not budget.spent
    budget.note_epoch(2, 0, 0.1, {"gradient_evaluations": 600.0})
    assert budget.spent == "study.gradient_budget, 3,000 gradient evaluations, is spent"


def test_journals_that_did_not_count_gradients_are_no_budget_of_them(study_config: Make) -> None:
    with pytest.raises(SamtuneError, match="written by an earlier samtune"):
        _budget(study_config, "gradient_budget: 3.0e3").note_epoch(1, 0, 0.1, {"val_loss": 1.0})


@pytest.mark.parametrize(
    ("setting", "below", "at"),
    [("target: 0.9", 0.89, 0.9), ("metric: val_loss, target: 0.5", 0.51, 0.5)],
)
def test_a_target_is_reached_in_the_metrics_own_direction(
    study_config: Make, setting: str, below: float, at: float
) -> None:
    budget = _budget(study_config, setting)
    budget.note_value("t0001", below)
    assert not budget.spent
    budget.note_value("t0002", at)
    assert "is reached by t0002" in budget.spent


@pytest.mark.parametrize(
    ("select", "state", "left"),
    [("best", "stopped", 0), ("last", "finished", 0), ("last", "stopped", 3)],
)
def test_a_study_that_has_reached_its_target_is_finished(
    written: Callable[..., Study], study_config: Make, select: str, state: str, left: int
) -> None:
    """By its last epoch a stopped trial counts for nothing, however good it was."""
    setting = f"study: {{target: 0.9, select: {select}, "
    config = study_config(RHO_ALONE, ("study: {", setting))
    study = written(config, [Run({"sam.rho": 0.3}, [0.5, 0.92], state)], baseline=[0.95])  # type: ignore[arg-type]
    assert study.left == left
    assert study.state == ("finished" if not left else "interrupted")
    assert bool(study.budget.spent) == (not left)
