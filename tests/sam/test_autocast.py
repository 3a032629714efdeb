"""An autocast around the whole step keeps no weights of another place.

It caches what it has rounded of each weight until it ends, however the weight changes meanwhile.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from samtune.sam import SAM
from tests.sam.steps import SGD

INPUTS = torch.linspace(-1, 1, 40).reshape(10, 4)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def lowered() -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16)


def loss(model: nn.Module) -> Tensor:
    return model(INPUTS).float().square().sum()


def own_loss(model: nn.Module) -> float:
    """With a copy that no cache has seen."""
    with lowered():
        return loss(copy.deepcopy(model)).item()


@pytest.mark.parametrize("momentum_climb", [False, True])
def test_each_pass_sees_the_weights_of_its_own_place(momentum_climb: bool) -> None:
    model = net()
    optimizer = SAM(model.parameters(), SGD, rho=2.0, lr=0.01, momentum=0.9)
    loss(model).backward()
    optimizer.descend()
    optimizer.zero_grad()
    climb = optimizer.at_momentum_neighbor if momentum_climb else optimizer.at_worst_neighbor
    with lowered():
        at_home = loss(model)
        at_home.backward()
        with climb():
            at_neighbor = loss(model)
            assert at_neighbor.item() == own_loss(model)
        assert loss(model).item() == at_home.item() == own_loss(model)
    assert abs(at_neighbor.item() - at_home.item()) > 0.1


def test_so_it_is_with_two_steps_a_closure_and_a_plain_step() -> None:
    model = net()
    optimizer = SAM(model.parameters(), SGD, rho=2.0, lr=0.01)
    with lowered():
        losses = [loss(model)]
        losses[0].backward()
        optimizer.first_step(zero_grad=True)
        losses.append(loss(model))
        losses[1].backward()
        optimizer.second_step()
        losses.append(loss(model))
        assert losses[2].item() == own_loss(model)

        losses.append(optimizer.step(lambda: loss(model)))
        losses.append(loss(model))
        assert losses[4].item() == own_loss(model)

        losses[4].backward()
        optimizer.descend()
        assert loss(model).item() == own_loss(model)
    assert len({found.item() for found in losses}) >= 4


@pytest.mark.parametrize("rho", [0.0, 2.0])
def test_a_step_inside_one_autocast_is_the_step_with_one_around_each_pass(rho: float) -> None:
    trained = []
    for outer in (False, True):
        model = net()
        optimizer = SAM(model.parameters(), SGD, rho=rho, lr=0.05)
        for _ in range(3):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=outer):
                for climb in (True, False):
                    with lowered():
                        found = loss(model)
                    found.backward()
                    if climb:
                        optimizer.first_step(zero_grad=True)
                optimizer.second_step(zero_grad=True)
        trained.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(trained[0], trained[1])
