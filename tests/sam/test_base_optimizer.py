"""A step is the base optimizer's, whose states, groups and schedules are SAM's own."""

from __future__ import annotations

import pickle
import warnings

import pytest
import torch

from samtune.sam import SAM, frozen_batchnorm_stats
from tests.sam.steps import (
    BASES,
    CLIMBS,
    SGD,
    assert_same,
    backward,
    sam_step,
    small_net,
    vector,
    weights,
)


@pytest.mark.parametrize(("base", "settings"), BASES)
def test_rho_0_is_the_base_optimizer_bit_for_bit(base: type, settings: dict[str, float]) -> None:
    sam_model, base_model = small_net(), small_net()
    sam = SAM(sam_model.parameters(), base, rho=0.0, **settings)
    plain = base(base_model.parameters(), **settings)
    assert sam.is_plain
    for seed in range(5):
        for model, optimizer in ((sam_model, sam), (base_model, plain)):
            torch.manual_seed(seed)
            backward(model, seed)
            optimizer.descend() if optimizer is sam else optimizer.step()
            optimizer.zero_grad()
    assert_same(weights(sam_model), weights(base_model))


@pytest.mark.parametrize(("base", "settings"), BASES)
def test_a_climb_of_rho_0_changes_nothing_but_the_dropout_masks(base: type, settings) -> None:
    sam_model, base_model = small_net(), small_net()
    sam = SAM(sam_model.parameters(), base, rho=0.0, **settings)
    plain = base(base_model.parameters(), **settings)
    for seed in range(3):
        torch.manual_seed(seed)
        backward(sam_model, seed)
        torch.manual_seed(seed)
        with sam.at_worst_neighbor(), frozen_batchnorm_stats(sam_model):
            backward(sam_model, seed)
        sam.descend()
        torch.manual_seed(seed)
        backward(base_model, seed)
        plain.step()
        sam.zero_grad()
        plain.zero_grad()
    assert_same(weights(sam_model), weights(base_model))


@pytest.mark.parametrize("base", [SGD, torch.optim.Adam])
@pytest.mark.parametrize("climb", CLIMBS)
def test_a_loaded_optimizer_goes_on_as_if_nothing_had_happened(base: type, climb) -> None:
    settings = {"momentum": 0.9} if base is SGD else {}
    straight, resumed = small_net(), small_net()
    optimizer = SAM(straight.parameters(), base, lr=0.01, rho=0.3, **climb, **settings)
    for seed in range(3):
        sam_step(straight, optimizer, seed)
    saved = pickle.loads(pickle.dumps((straight.state_dict(), optimizer.state_dict())))
    for seed in range(3, 6):
        sam_step(straight, optimizer, seed)

    again = SAM(resumed.parameters(), base, lr=9.9, rho=9.9, **settings)
    resumed.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    for seed in range(3, 6):
        sam_step(resumed, again, seed)
    assert_same(weights(straight), weights(resumed))
    assert again.param_groups[0]["lr"] == 0.01


def test_lr_schedules_drive_the_base_optimizer_without_a_warning() -> None:
    w = vector(1.0)
    optimizer = SAM([w], SGD, lr=0.4, rho=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        w.square().backward()
        optimizer.step(lambda: w.square().backward())
        schedule.step()
    assert optimizer.base_optimizer.param_groups[0]["lr"] == 0.2


def test_a_schedule_that_cycles_the_momentum_too_finds_it() -> None:
    optimizer = SAM([vector(1.0)], SGD, lr=0.4, momentum=0.9, rho=0.1)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=10)
    assert optimizer.base_optimizer.param_groups[0]["momentum"] == 0.95  # where its cycle begins


def test_the_well_known_first_step_keeps_the_gradients_there_unless_told_otherwise() -> None:
    w = vector(1.0)
    optimizer = SAM([w], SGD, lr=0.1, rho=0.1)
    for told, kept in (({}, True), ({"zero_grad": True}, False)):
        w.square().backward()
        optimizer.first_step(**told)
        assert (w.grad is not None) is kept
        w.square().backward()
        optimizer.second_step(**told)
        assert (w.grad is not None) is kept


def test_the_well_known_calls_do_the_same_step() -> None:
    results = []
    for way in ("steps", "closure", "context"):
        w = vector(1, 2)
        optimizer = SAM([w], SGD, lr=0.1, momentum=0.9, rho=0.3)
        for _ in range(3):
            loss = w.pow(4).sum()
            loss.backward()
            if way == "steps":
                optimizer.first_step(zero_grad=True)
                w.pow(4).sum().backward()
                optimizer.second_step(zero_grad=True)
            elif way == "closure":
                optimizer.step(lambda w=w: w.pow(4).sum().backward())
                optimizer.zero_grad()
            else:
                with optimizer.at_worst_neighbor():
                    w.pow(4).sum().backward()
                optimizer.descend()
                optimizer.zero_grad()
        results.append(w.tolist())
    assert results[0] == results[1] == results[2]


def test_an_added_group_takes_the_defaults_it_does_not_set() -> None:
    optimizer = SAM([vector(1)], SGD, lr=0.1, rho=0.3)
    optimizer.add_param_group({"params": [vector(2)], "adaptive": True})
    added = optimizer.param_groups[1]
    assert (added["rho"], added["adaptive"], added["lr"]) == (0.3, True, 0.1)


@pytest.mark.parametrize(
    "wrong",
    [{"rho": -0.1}, {"rho": float("nan")}, {"rho": float("inf")}, {"eta": -1.0}, {"sigma": -1.0},
     {"mean_decay": 1.0}, {"sigma": 1.0, "adaptive": True}],
)  # fmt: skip
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        SAM([vector(1)], SGD, lr=0.1, **wrong)
    with pytest.raises(ValueError):
        SAM([vector(1)], SGD, lr=0.1).add_param_group({"params": [vector(2)], **wrong})


def test_sam_holds_one_copy_of_the_weights_and_no_more() -> None:
    model = small_net()
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.1, adaptive=True, eta=0.1)
    sam_step(model, optimizer, 0)
    held = sum(t.numel() for t in optimizer._neighbors.values())
    assert held == sum(p.numel() for p in model.parameters())
