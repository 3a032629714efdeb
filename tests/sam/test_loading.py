"""States of other optimizers, states that do not fit, and torch.distributed.checkpoint."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from samtune.sam import SAM
from tests.sam.steps import SGD, assert_same, backward, fail_after, sam_step, small_net, weights

BASES = [(SGD, {"lr": 0.1, "momentum": 0.9}), (torch.optim.Adam, {"lr": 0.01})]


@pytest.mark.parametrize(("base", "settings"), BASES)
def test_a_plain_optimizers_state_is_taken_and_keeps_sams_own_settings(
    base: type, settings: dict[str, Any]
) -> None:
    model = small_net()
    plain = base(model.parameters(), **settings)
    backward(model)
    plain.step()
    saved = copy.deepcopy(plain.state_dict())

    other = copy.deepcopy(model)
    optimizer = SAM(other.parameters(), base, lr=9.9, rho=0.3, adaptive=True, eta=0.1)
    optimizer.load_state_dict(saved)
    [group] = optimizer.param_groups
    assert (group["rho"], group["adaptive"], group["eta"]) == (0.3, True, 0.1)
    assert group["lr"] == settings["lr"]

    for trained, step in ((model, plain.step), (other, optimizer.descend)):
        trained.zero_grad()
        torch.manual_seed(1)
        backward(trained, 1)
        step()
    assert_same(weights(model), weights(other))


def well_known_state(model: nn.Module) -> dict[str, Any]:
    """As the well-known implementation gives it: the weights before the climb, no momentum."""
    params = list(model.parameters())
    group = {"rho": 0.7, "adaptive": True, **SGD(params, lr=0.1, momentum=0.9).defaults}
    return {
        "state": {i: {"old_p": p.detach().clone()} for i, p in enumerate(params)},
        "param_groups": [{**group, "params": list(range(len(params)))}],
    }


@pytest.mark.parametrize("base", [SGD, torch.optim.Adam])
def test_the_well_known_implementations_state_is_taken(base: type) -> None:
    model = small_net()
    saved = well_known_state(model)
    if base is torch.optim.Adam:
        saved["param_groups"][0].update(base(model.parameters()).defaults)
    optimizer = SAM(model.parameters(), base, rho=0.1, lr=9.9, mean_decay=0.5)
    optimizer.load_state_dict(saved)
    [group] = optimizer.param_groups
    assert (group["rho"], group["adaptive"], group["mean_decay"]) == (0.7, True, 0.5)
    assert group["lr"] == saved["param_groups"][0]["lr"]
    assert not optimizer.state  # it keeps no second copy of the weights
    sam_step(model, optimizer, 0)


def snapshot(optimizer: SAM) -> dict[str, Any]:
    return copy.deepcopy(optimizer.state_dict())


def spoil(state: dict[str, Any], how: str) -> dict[str, Any]:
    [group] = state["param_groups"]
    if how == "rho":
        group["rho"] = -1.0
    elif how == "groups":
        state["param_groups"] = [group, group]
    elif how == "params":
        group["params"] = group["params"][:-1]
    elif how == "skipped_steps":
        state["skipped_steps"] = "many"
    elif how == "base":
        for kept in state["state"].values():
            kept.pop("step", None)
    return state


@pytest.mark.parametrize("how", ["rho", "groups", "params", "skipped_steps", "base"])
def test_a_state_that_does_not_fit_changes_nothing(how: str) -> None:
    model = small_net()
    optimizer = SAM(model.parameters(), torch.optim.Adam, lr=0.01, rho=0.3, sigma=1.0)
    sam_step(model, optimizer, 0)
    before = snapshot(optimizer)
    sam_step(model, optimizer, 1)
    now, at_home = snapshot(optimizer), weights(model)
    with pytest.raises((ValueError, KeyError)):
        optimizer.load_state_dict(spoil(before, how))
    after = snapshot(optimizer)
    assert after["param_groups"] == now["param_groups"]
    for i, state in now["state"].items():
        assert_same(state, after["state"][i])
    assert_same(at_home, weights(model))
    sam_step(model, optimizer, 2)
    assert optimizer.param_groups is optimizer.base_optimizer.param_groups


# --- torch.distributed.checkpoint


@pytest.fixture
def _one_process() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(("base", "settings"), BASES)
@pytest.mark.parametrize("climb", [{}, {"sigma": 1.0}])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_state_goes_through_a_distributed_checkpoint(
    base: type, settings: dict[str, Any], climb: dict[str, Any], on_disk: bool, tmp_path: Path
) -> None:
    model = small_net()
    optimizer = SAM(model.parameters(), base, rho=0.3, **climb, **settings)
    for seed in range(2):
        sam_step(model, optimizer, seed)
    saved = copy.deepcopy({"optimizer": get_optimizer_state_dict(model, optimizer)})

    other = copy.deepcopy(model)
    fresh = SAM(other.parameters(), base, rho=9.9, **{**settings, "lr": 9.9}, **climb)
    before = weights(other)
    if on_disk:
        dcp.save(saved, checkpoint_id=tmp_path)
        saved = {"optimizer": get_optimizer_state_dict(other, fresh)}
        dcp.load(saved, checkpoint_id=tmp_path)
    set_optimizer_state_dict(other, fresh, saved["optimizer"])
    assert_same(before, weights(other))
    for seed in (2, 3):
        sam_step(model, optimizer, seed)
        sam_step(other, fresh, seed)
    assert_same(weights(model), weights(other))
    assert fresh.param_groups[0]["rho"] == 0.3


def test_a_step_without_a_closure_is_refused_unless_there_is_nothing_to_climb() -> None:
    model = small_net()
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.3)
    with pytest.raises(ValueError, match="closure"):
        optimizer.step()
    backward(model)
    before = weights(model)
    with pytest.raises(ValueError, match="descend"):
        optimizer.step()
    for p in model.parameters():
        p.grad.zero_()
    optimizer.step()
    assert_same(before, weights(model))
    backward(model)
    with pytest.raises(ValueError, match="descend"):
        optimizer.step()


def test_after_an_error_at_the_neighbor_a_step_needs_another_climb() -> None:
    model = small_net()
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.3)
    backward(model)
    with pytest.raises(ZeroDivisionError), optimizer.at_worst_neighbor():
        fail_after(backward, model)
    backward(model)
    with pytest.raises(ValueError, match="descend"):
        optimizer.step()
