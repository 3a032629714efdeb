"""The weights come home, whatever happens at the neighbor."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from samtune.sam import SAM, frozen_batchnorm_stats
from tests.sam.steps import (
    CLIMBS,
    SGD,
    assert_same,
    backward,
    fail_after,
    sam_step,
    small_net,
    vector,
    weights,
)


@pytest.mark.parametrize("climb", CLIMBS)
def test_weights_come_home_bit_for_bit_to_their_own_memory(climb: dict[str, float]):
    model = small_net()
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.3, **climb)
    before, memory = weights(model), [p.data_ptr() for p in model.parameters()]
    held = model[0].weight.detach()
    backward(model)
    with optimizer.at_worst_neighbor():
        assert not torch.equal(model[0].weight, before["0.weight"])
        assert torch.equal(held, before["0.weight"])
    assert_same({k: before[k] for k, _ in model.named_parameters()}, dict(model.named_parameters()))
    assert [p.data_ptr() for p in model.parameters()] == memory


def test_a_climb_that_fails_in_its_second_group_has_moved_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small_net()
    groups = [{"params": [p]} for p in model.parameters()]
    optimizer = SAM(groups, SGD, lr=0.1, rho=0.3)
    backward(model)
    before = weights(model)
    allocate = iter([torch.empty_like] * (len(groups) - 1))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: next(allocate)(*a, **k))  # then fails
    with pytest.raises(StopIteration):
        optimizer.first_step()
    assert_same(before, weights(model))
    monkeypatch.undo()
    optimizer.first_step()  # nothing is left to come home
    optimizer.second_step()


@pytest.mark.parametrize("climb", CLIMBS)
@pytest.mark.parametrize("size", [0.0, 1e-40, 1e-23, 1e-20])
def test_a_vanishing_gradient_never_climbs_further_than_rho(
    climb: dict[str, float], size: float
) -> None:
    layer = nn.Linear(30, 20)
    optimizer = SAM(layer.parameters(), SGD, lr=0.1, rho=0.3, **climb)
    before = [p.detach().clone() for p in layer.parameters()]
    for p in layer.parameters():
        p.grad = torch.full_like(p, size)
    with optimizer.at_worst_neighbor():
        moved = [(p - b).flatten() for p, b in zip(layer.parameters(), before, strict=True)]
    assert torch.cat(moved).norm() <= 0.3


def test_a_graph_of_other_weights_is_refused_by_autograd() -> None:
    model, images = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), torch.randn(2, 4)
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.3)
    model(images).sum().backward()
    at_home = model(images).sum()
    with (
        pytest.raises(RuntimeError, match="modified by an inplace operation"),
        optimizer.at_worst_neighbor(),
    ):
        at_home.backward()
    model(images).sum().backward()
    with optimizer.at_worst_neighbor():
        at_neighbor = model(images).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        at_neighbor.backward()


def test_a_model_that_changes_its_type_climbs_in_the_new_one() -> None:
    model = nn.Linear(4, 1)
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.3)
    for dtype in (torch.float32, torch.float64):
        model.to(dtype)
        images = torch.randn(2, 4, dtype=dtype)
        model(images).sum().backward()
        with optimizer.at_worst_neighbor():
            assert model(images).dtype == dtype
        optimizer.zero_grad()


def test_an_optimizer_whose_weights_are_away_cannot_be_copied() -> None:
    model = small_net()
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.3)
    backward(model)
    with optimizer.at_worst_neighbor(), pytest.raises(RuntimeError, match="at the neighbor"):
        copy.deepcopy(optimizer)


def test_after_an_exception_weights_gradients_and_batch_norm_are_as_before_the_step() -> None:
    model = small_net()
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.3)
    backward(model)
    before = weights(model)
    with (
        pytest.raises(ZeroDivisionError),
        optimizer.at_worst_neighbor(),
        frozen_batchnorm_stats(model),
    ):
        fail_after(backward, model)
    assert_same(before, weights(model))
    assert all(p.grad is None for p in model.parameters())
    assert model[1].track_running_stats
    sam_step(model, optimizer, 0)  # and the optimizer is usable


def test_a_weight_without_a_second_gradient_comes_home_and_stays() -> None:
    used, dropped = vector(1), vector(2)
    optimizer = SAM([used, dropped], SGD, lr=0.1, rho=0.5)
    (used * dropped).backward()
    with optimizer.at_worst_neighbor():
        assert dropped.item() != 2
        used.square().backward()
    optimizer.descend()
    assert dropped.item() == 2
    assert used.item() != 1


def test_a_weight_with_a_second_gradient_only_steps() -> None:
    first, late = vector(1), vector(2)
    optimizer = SAM([first, late], SGD, lr=0.1, rho=0.5)
    first.square().backward()
    with optimizer.at_worst_neighbor():
        (first * late).backward()
    optimizer.descend()
    assert late.item() == pytest.approx(2 - 0.1 * 1.5)


def test_tied_weights_climb_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    before = model[0].weight.detach().clone()
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.5)
    model(torch.ones(1, 3)).square().sum().backward()
    with optimizer.at_worst_neighbor():
        assert (model[0].weight - before).norm().item() == pytest.approx(0.5)
    assert torch.equal(model[1].weight, before)


def test_climbing_twice_without_coming_home_is_refused() -> None:
    w = vector(1)
    optimizer = SAM([w], SGD, lr=0.1)
    w.grad = torch.ones_like(w)
    optimizer.first_step()
    with pytest.raises(RuntimeError, match="second_step"):
        optimizer.first_step()


def test_climbing_without_a_gradient_is_refused() -> None:
    with pytest.raises(RuntimeError, match="backward"):
        SAM([vector(1)], SGD, lr=0.1).first_step()
