"""The learning rate of each step, by hand, in the loop and after a resume."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from samtune.config.trial import TrainingConfig, TrialConfig
from samtune.training.loop import EpochResult, train
from samtune.training.schedule import lr_factor, steps_per_epoch
from samtune.training.state import TrainingState, set_up
from tests.training.test_sam_step import CPU, DATA, batch, trial


def factors(steps: range, epoch_steps: int, **training: Any) -> list[float]:
    config = TrainingConfig.model_validate({"epochs": 10, **training})
    return [lr_factor(config, step, epoch_steps) for step in steps]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", {0: 1.0, 5: 1.0, 9: 1.0}),
        ("cosine", {0: 1.0, 5: 0.5, 9: (1 + math.cos(0.9 * math.pi)) / 2}),
        ("step", {2: 1.0, 3: 0.2, 6: 0.04, 8: 0.008}),
    ],
)
def test_schedules_by_hand(schedule: str, expected: dict[int, float]) -> None:
    found = factors(range(10), 1, lr_schedule=schedule)
    for epoch, factor in expected.items():
        assert found[epoch] == pytest.approx(factor, rel=1e-12)


def test_by_epoch_the_rate_stays_within_an_epoch_and_by_step_it_does_not() -> None:
    by_epoch = factors(range(40), 4)
    assert [by_epoch[i] for i in range(0, 40, 4)] == factors(range(10), 1)
    assert all(by_epoch[i] == by_epoch[i - i % 4] for i in range(40))
    by_step = factors(range(40), 4, lr_interval="step")
    assert by_step == pytest.approx([(1 + math.cos(math.pi * i / 40)) / 2 for i in range(40)])


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_the_rate_rises_by_equal_parts_and_the_schedule_takes_what_is_left(interval: str) -> None:
    found = factors(range(40), 4, warmup_epochs=2.5, lr_interval=interval)
    assert found[:10] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    # 7.5 epochs are left; at 25 steps half of them are over, in the middle of an epoch.
    at_25 = 0.5 if interval == "step" else (1 + math.cos(math.pi * (6 - 2.5) / 7.5)) / 2
    assert found[25] == pytest.approx(at_25)
    assert found[10:] == sorted(found[10:], reverse=True)


def test_a_step_schedule_counts_its_shares_after_the_warmup() -> None:
    found = factors(range(20), 1, epochs=20, warmup_epochs=10.0, lr_schedule="step")
    assert found[10:] == pytest.approx([1, 1, 1, 0.2, 0.2, 0.2, 0.04, 0.04, 0.008, 0.008])


@pytest.mark.parametrize("batch_size", [16, 20, 64, 65])
def test_steps_of_an_epoch_are_its_batches(batch_size: int) -> None:
    training = TrainingConfig(epochs=1, batch_size=batch_size)
    batches = len(list(DATA.train_batches(batch_size, CPU).shuffled(0)))
    assert steps_per_epoch(training, len(DATA.train)) == batches


def rates(config: TrialConfig, *, stopped_after: int = 0) -> tuple[list[float], list[EpochResult]]:
    """Each step's learning rate, as the base optimizer has it, and the epochs' results."""
    seen: list[float] = []

    def watched() -> TrainingState:
        state = set_up(config, DATA, CPU)
        state.optimizer.base_optimizer.register_step_pre_hook(
            lambda optimizer, *_: seen.append(optimizer.param_groups[0]["lr"])
        )
        return state

    state, results = watched(), []
    epochs = train(state, config, DATA, CPU)
    for _ in range(stopped_after):
        results.append(next(epochs))
    if stopped_after:
        saved, state = copy.deepcopy(state.state_dict()), watched()
        state.load_state_dict(saved)
        epochs = train(state, config, DATA, CPU)
    return seen, [*results, *epochs]


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
@pytest.mark.parametrize("stopped_after", [0, 1, 2])
def test_every_step_is_made_with_its_rate_and_the_metric_is_the_last_ones(
    interval: str, schedule: str, stopped_after: int
) -> None:
    config = trial(epochs=4, warmup_epochs=1.5, lr_interval=interval, lr_schedule=schedule)
    seen, results = rates(config, stopped_after=stopped_after)
    expected = [0.1 * lr_factor(config.training, step, 4) for step in range(16)]
    assert seen == pytest.approx(expected, rel=1e-12)
    assert [result.metrics["lr"] for result in results] == seen[3::4]


def test_batches_have_the_size_that_the_numbers_above_rely_on() -> None:
    assert len(batch()[0]) == 16
    assert len(DATA.train) == 64


@pytest.mark.parametrize("wrong", [-0.5, 10.0, 11.0, math.inf, "1"])
def test_a_warmup_that_leaves_no_epoch_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="warmup_epochs"):
        TrainingConfig.model_validate({"epochs": 10, "warmup_epochs": wrong})
