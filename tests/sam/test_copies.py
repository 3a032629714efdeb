"""A copy of an optimizer is one of its own, whatever a scheduler or a hook did to the original."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import StepLR

from samtune.sam import SAM
from tests.sam.steps import CLIMBS, SGD, assert_same, backward, sam_step, small_net, weights

DUPLICATES = [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]


@pytest.mark.parametrize("duplicate", DUPLICATES, ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("climb", CLIMBS)
def test_a_copy_trains_as_the_original(
    duplicate: Callable[[Any], Any], climb: dict[str, float]
) -> None:
    model = small_net()
    optimizer = SAM(model.parameters(), SGD, lr=0.1, momentum=0.9, rho=0.3, **climb)
    sam_step(model, optimizer, 0)
    other_model, other = duplicate((model, optimizer))
    for seed in (1, 2):
        sam_step(model, optimizer, seed)
        sam_step(other_model, other, seed)
    assert_same(weights(model), weights(other_model))


def closure_step(model: torch.nn.Module, optimizer: SAM, seed: int) -> None:
    torch.manual_seed(seed)
    backward(model, seed)
    optimizer.step(lambda: backward(model, seed))
    optimizer.zero_grad()


@pytest.mark.parametrize("duplicate", DUPLICATES, ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("steps_before", [0, 1])
@pytest.mark.parametrize("make_step", [closure_step, sam_step])
def test_a_copy_made_after_a_scheduler_was_attached_steps_itself_and_not_the_original(
    duplicate: Callable[[Any], Any], steps_before: int, make_step: Callable[..., None]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch's warning of a schedule that runs ahead is one
        model = small_net()
        optimizer = SAM(model.parameters(), SGD, lr=0.1, momentum=0.9, rho=0.3)
        schedule = StepLR(optimizer, step_size=1, gamma=0.5)
        for seed in range(steps_before):
            make_step(model, optimizer, seed)
            schedule.step()
        before = weights(model)
        other_model, other, other_schedule = duplicate((model, optimizer, schedule))
        for seed in (5, 6):
            make_step(other_model, other, seed)
            other_schedule.step()
        assert_same(before, weights(model))
        assert other.base_optimizer.param_groups[0]["lr"] == 0.1 * 0.5 ** (steps_before + 2)
        for seed in (5, 6):
            make_step(model, optimizer, seed)
            schedule.step()
    assert_same(weights(model), weights(other_model))


def test_a_step_that_someone_wrapped_and_hooks_stay_with_the_original() -> None:
    model = small_net()
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.3)
    inner, calls = optimizer.step, []
    optimizer.step = lambda *args: calls.append("step") or inner(*args)
    optimizer.register_step_post_hook(lambda *_: calls.append("hook"))
    for duplicate in DUPLICATES:
        other_model, other = duplicate((model, optimizer))
        closure_step(other_model, other, 0)
    assert calls == []
    closure_step(model, optimizer, 0)
    assert calls == ["step", "hook"]
