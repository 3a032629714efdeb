"""Means of the weights, against sums in double precision, and the statistics that go with them."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from samtune.config.trial import TrainingConfig
from samtune.training.averaging import STATISTICS_BATCHES, WeightAverage, estimate_statistics
from samtune.training.loop import evaluate, train
from samtune.training.state import TrainingState, evaluated_weights, set_up
from tests.training.test_sam_step import CPU, DATA, TASK, assert_same, new_state, trial, weights

Weights = dict[str, Tensor]


def parameters(model: nn.Module) -> Weights:
    return {name: p.detach().clone().double() for name, p in model.named_parameters()}


def after_each_step(state: TrainingState) -> list[Weights]:
    """Fills with the weights after each step while `state` is trained."""
    seen: list[Weights] = []
    state.optimizer.base_optimizer.register_step_post_hook(
        lambda *_: seen.append(parameters(state.model))
    )
    return seen


def assert_mean(model: nn.Module, expected: Weights) -> None:
    for name, found in parameters(model).items():
        torch.testing.assert_close(found, expected[name], atol=1e-6, rtol=1e-5)


def number(value: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        # (1 + 1) / (10 + 1) = 2/11 of 1 and 9/11 of 4; then 3/12 of that and 9/12 of 0.
        (0.9, [1.0, 2 / 11 + 36 / 11, (2 / 11 + 36 / 11) / 4]),
        (0.1, [1.0, 0.1 + 3.6, 0.37]),
        (None, [1.0, 2.5, 5 / 3]),
    ],
)
def test_a_mean_of_three_numbers_by_hand(decay: float | None, expected: list[float]) -> None:
    average = WeightAverage(number(7.0), decay)
    found = []
    for value in (1.0, 4.0, 0.0):
        average.update(number(value))
        found.append(average.model.weight.item())
    assert found == pytest.approx(expected, rel=1e-6)
    assert average.count == 3


def test_a_moving_average_takes_in_every_step_at_home() -> None:
    config = trial(ema_decay=0.6, epochs=2)
    state = set_up(config, DATA, CPU)
    seen = after_each_step(state)
    for _ in train(state, config, DATA, CPU):
        pass
    assert len(seen) == 8
    mean = seen[0]
    for n, at_step in enumerate(seen[1:], 1):
        decay = min(0.6, (1 + n) / (10 + n))
        mean = {name: decay * mean[name] + (1 - decay) * at_step[name] for name in mean}
    assert_mean(state.evaluated, mean)


def test_equal_weights_for_every_epoch_after_the_start() -> None:
    config = trial(average_from=0.5, epochs=5, lr_schedule="constant")
    state = set_up(config, DATA, CPU)
    ends, averaged = [], []
    for _ in train(state, config, DATA, CPU):
        ends.append(parameters(state.model))
        averaged.append(state.evaluated is not state.model)
    assert averaged == [False, False, True, True, True]  # epochs 3, 4 and 5
    mean = {name: sum(end[name] for end in ends[2:]) / 3 for name in ends[0]}
    assert_mean(state.evaluated, mean)  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", [{"ema_decay": 0.9}, {"average_from": 0.0}], ids=str)
def test_training_is_the_same_with_and_without_an_average(setting: dict[str, Any]) -> None:
    found = []
    for settings in ({}, setting):
        config = trial(model={"name": "test_net", "dropout": 0.2}, **settings)
        state = set_up(config, DATA, CPU)
        results = list(train(state, config, DATA, CPU))
        found.append((weights(state), [r.metrics for r in results]))
    assert_same(found[0][0], found[1][0])
    for plain, averaged in zip(found[0][1], found[1][1], strict=True):
        assert plain["train_loss"] == averaged["train_loss"]
        assert plain["val_loss"] != averaged["val_loss"]


@pytest.mark.parametrize("setting", [{"ema_decay": 0.9}, {"average_from": 0.5}], ids=str)
def test_a_saved_state_holds_the_weights_that_were_evaluated(setting: dict[str, Any]) -> None:
    config = trial(**setting)
    state = set_up(config, DATA, CPU)
    for result in train(state, config, DATA, CPU):
        buffer = io.BytesIO()
        torch.save(state.state_dict(), buffer)
        saved = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
        fresh = set_up(trial(), DATA, CPU).model
        fresh.load_state_dict(evaluated_weights(saved))
        found = evaluate(fresh, TASK, DATA.val_batches(16, CPU))
        assert found == {k: v for k, v in result.metrics.items() if k.startswith("val_")}


def test_without_an_average_the_weights_are_the_models_own() -> None:
    state = new_state()
    assert state.evaluated is state.model
    assert_same(evaluated_weights(state.state_dict()), weights(state))


def test_statistics_are_the_batches_own_under_the_averaged_weights() -> None:
    config = trial(ema_decay=0.9)
    state = set_up(config, DATA, CPU)
    for _ in train(state, config, DATA, CPU):
        pass
    model: Any = state.evaluated
    batches = list(DATA.train_batches(16, CPU).shuffled(3))
    estimate_statistics(model, batches, "fp32", seed=0)
    with torch.no_grad():
        seen = [model[0](inputs).double() for inputs, _ in batches]
    means = [x.mean(dim=(0, 2, 3)) for x in seen]
    variances = [x.transpose(0, 1).flatten(1).var(dim=1, correction=1) for x in seen]
    norm = model[1]
    for found, parts in ((norm.running_mean, means), (norm.running_var, variances)):
        torch.testing.assert_close(found.double(), torch.stack(parts).mean(0), atol=1e-6, rtol=1e-5)
    assert norm.momentum == 0.1
    assert not torch.equal(norm.running_mean, state.model[1].running_mean)


def test_no_more_batches_are_looked_at_than_a_running_mean_remembers() -> None:
    config = trial(ema_decay=0.9, batch_size=2, epochs=1)
    state = set_up(config, DATA, CPU)
    next(train(state, config, DATA, CPU))
    model: Any = state.evaluated
    assert len(DATA.train) // 2 > STATISTICS_BATCHES
    assert model[1].num_batches_tracked == STATISTICS_BATCHES


def test_a_model_without_batch_norm_is_averaged_too() -> None:
    config = trial(model="test_net_without_norm", average_from=0.0)
    state = set_up(config, DATA, CPU)
    for _ in train(state, config, DATA, CPU):
        pass
    assert state.average is not None
    assert state.average.count == 2


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("index", torch.tensor([5, 7]))
        self.register_buffer("scale", torch.tensor([0.5]))


def test_other_buffers_are_those_of_the_latest_model_and_not_averaged() -> None:
    average = WeightAverage(Counts(), 0.9)
    for step in range(3):
        model = Counts()
        model.scale += step
        average.update(model)
    assert average.model.index.tolist() == [5, 7]  # a mean cut to integers would be [4, 6]
    assert average.model.scale.item() == 2.5


def test_the_average_of_a_compiled_model_is_a_plain_one() -> None:
    state = new_state(compile=True, ema_decay=0.9)
    assert state.average is not None
    state.average.update(state.model)
    assert_same(weights(state), dict(state.evaluated.state_dict()))
    evaluate(state.evaluated, TASK, DATA.val_batches(16, CPU))  # compiles nothing


@pytest.mark.parametrize(
    "wrong",
    [{"ema_decay": 0.0}, {"ema_decay": 1.0}, {"average_from": 1.0}, {"average_from": -0.1},
     {"ema_decay": 0.9, "average_from": 0.5}],
)  # fmt: skip
def test_averages_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainingConfig.model_validate({"epochs": 3, **wrong})
