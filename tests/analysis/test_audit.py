"""Rungs judged by trials that ran on, held against rankings made by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from samtune.analysis.audit import audit, is_audited
from samtune.study.study import Study
from tests.synthetic import RHO_ALONE, Make, Run

Written = Callable[..., Study]
AUDITED = ("study: {trials: 4", "study: {audit: 0.5, trials: 12")


@pytest.mark.parametrize(
    ("share", "numbers"),
    [(0.0, []), (0.1, [10, 20, 30]), (0.25, [4, 8, 12, 16, 20, 24, 28]), (1.0, [*range(1, 31)])],
)
def test_the_audited_trials_are_spread_evenly(share: float, numbers: list[int]) -> None:
    assert [n for n in range(1, 31) if is_audited(n, share)] == numbers


def _runs(curves: list[list[float]]) -> list[Run]:
    """Every second trial is audited and has one of the curves; the others were stopped."""
    runs = []
    for i, curve in enumerate(curves):
        runs.append(Run({"sam.rho": 0.02 + i / 100}, [0.5], "stopped"))
        runs.append(Run({"sam.rho": 0.3 + i / 100}, curve))
    return runs


# The first epoch ranks them the other way round, the second as the end does.
REVERSED = [[0.9 - i / 10, 0.5 + i / 50, 0.6 + i / 50] for i in range(6)]


def test_a_rung_that_keeps_the_wrong_half_is_found_out(
    written: Written, study_config: Make
) -> None:
    config = study_config(RHO_ALONE, AUDITED, ("study: {", "study: {select: last, "))
    found = audit(written(config, _runs(REVERSED)))  # rungs at epochs 1 and 2, the best half kept
    assert found is not None
    assert found.trials == 6
    assert [(r.epoch, r.correlation, r.is_rung) for r in found.rungs] == [
        (1, pytest.approx(-1.0), True),
        (2, pytest.approx(1.0), True),
    ]
    # Epoch 1 keeps the three that end at 0.60, 0.62 and 0.64; the best of all ends at 0.70.
    assert [round(r.regret, 6) for r in found.rungs] == [0.06, 0.0]
    assert found.regret == pytest.approx(0.06)
    assert found.grace_epochs == 2
    assert "grace_epochs 2 would have lost nothing, and 1 was too early." in found.sentence
    assert "at epoch 1 -1.00, epoch 2 1.00" in found.sentence


def test_a_rung_that_keeps_the_best_is_right(written: Written, study_config: Make) -> None:
    config = study_config(RHO_ALONE, AUDITED, ("study: {", "study: {select: last, "))
    curves = [[0.1 + i / 10, 0.2 + i / 10, 0.3 + i / 10] for i in range(6)]
    found = audit(written(config, _runs(curves)))
    assert found is not None
    assert (found.regret, found.grace_epochs) == (0.0, 1)
    assert found.sentence.endswith("grace_epochs 1 is right.")


def test_the_trials_that_the_scheduler_let_finish_are_no_fair_sample(
    written: Written, study_config: Make
) -> None:
    """Trials 1, 3, 5, ... would change the verdict; they are not audited."""
    config = study_config(RHO_ALONE, AUDITED, ("study: {", "study: {select: last, "))
    runs = _runs(REVERSED)
    favoured = [Run(r.values, [0.99, 0.99, 0.99]) if r.state == "stopped" else r for r in runs]
    found = audit(written(config, favoured))
    assert found is not None
    assert (found.trials, round(found.regret or 0, 6)) == (6, 0.06)


def test_a_few_audited_trials_judge_nothing(written: Written, study_config: Make) -> None:
    config = study_config(RHO_ALONE, AUDITED)
    found = audit(written(config, _runs(REVERSED[:4])))
    assert found is not None
    assert (found.trials, found.rungs, found.grace_epochs) == (4, [], None)
    assert "5 are needed" in found.sentence


def test_without_an_audit_there_is_none(written: Written, study_config: Make) -> None:
    assert audit(written(study_config(RHO_ALONE), _runs(REVERSED))) is None
