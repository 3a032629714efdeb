"""Gradients that are not finite reach no weight, and every skipped step is counted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from samtune.sam import SAM
from tests.sam.steps import SGD, sam_step, small_net, vector, weights

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("base", [SGD, torch.optim.Adam])
def test_a_climb_that_is_not_finite_skips_the_step(
    base: type, bad: float, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SAM, "asynchronous", asynchronous)
    w, empty = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.empty(0))
    optimizer = SAM([w, empty], base, lr=0.1, rho=0.5, fused=True)
    for gradient in (1.0, bad, 1.0):
        w.grad, empty.grad = torch.tensor([1.0, gradient]), torch.empty(0)
        before = w.detach().clone()
        with optimizer.at_worst_neighbor():
            w.grad, empty.grad = torch.tensor([1.0, 1.0]), torch.empty(0)
        optimizer.descend()
        assert torch.equal(w, before) == (gradient is bad)
    assert optimizer.skipped_steps == 1
    assert optimizer.state_dict()["skipped_steps"] == 1


def test_never_waiting_for_the_device_gives_the_same_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = []
    for asynchronous in (False, True):
        monkeypatch.setattr(SAM, "asynchronous", asynchronous)
        model = small_net()
        optimizer = SAM(model.parameters(), SGD, lr=0.1, momentum=0.9, rho=0.3, fused=True)
        for seed in range(5):
            sam_step(model, optimizer, seed)
        trained.append(weights(model))
    for name in trained[0]:
        torch.testing.assert_close(trained[0][name], trained[1][name])


def test_a_gradient_that_is_not_finite_leaves_friendly_sams_mean_alone() -> None:
    w = vector(0, 0)
    optimizer = SAM([w], SGD, lr=1.0, rho=1.0, sigma=1.0)
    for value in (1.0, float("nan")):
        w.grad = torch.full_like(w, value)
        with optimizer.at_worst_neighbor():
            pass
    assert optimizer.state_dict()["state"][0]["gradient_mean"].tolist() == [1, 1]


# --- the gradient of the step


def second_pass(w: nn.Parameter, optimizer: SAM, way: str, gradients: list[float]) -> None:
    """A step whose passes give these gradients, through backward()."""
    given = iter(gradients)

    def backward() -> None:
        (w * next(given)).sum().backward()

    backward()
    if way == "plain":
        optimizer.descend()
    elif way == "closure":
        optimizer.step(backward)
    elif way == "steps":
        optimizer.first_step(zero_grad=True)
        backward()
        optimizer.second_step()
    else:
        with optimizer.at_worst_neighbor():
            backward()
        optimizer.descend()
    optimizer.zero_grad()


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("way", ["plain", "closure", "steps", "context"])
@pytest.mark.parametrize("base", [SGD, torch.optim.AdamW])
def test_a_step_that_is_not_finite_is_skipped_and_the_next_is_made(
    base: type, way: str, bad: float, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SAM, "asynchronous", asynchronous)
    w, expected = (nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(2))
    # Rho is small, so that the constant gradients are all that matters.
    optimizer = SAM([w], base, lr=0.1, rho=0.0 if way == "plain" else 1e-3, fused=True)
    alone = base([expected], lr=0.1, fused=True)
    for last in (1.0, bad, 1.0):
        second_pass(w, optimizer, way, [last] if way == "plain" else [1.0, last])
        if last == 1.0:
            expected.grad = torch.ones(2)
            alone.step()
    assert torch.equal(w, expected)
    assert optimizer.skipped_steps == 1


def test_every_kind_of_gradient_that_is_finite_makes_the_step_bit_for_bit() -> None:
    huge, half, sparse, complex_ = (
        torch.full((3,), 3e38),  # whose norm is not finite
        torch.full((3,), 6e4, dtype=torch.float16),
        torch.sparse_coo_tensor([[1]], [2.0], (3,), check_invariants=True),
        torch.tensor([1 + 2j, 0, 3j]),
    )
    for gradient in (huge, half, sparse, complex_):
        one, other = (nn.Parameter(torch.ones(3, dtype=gradient.dtype)) for _ in range(2))
        one.grad, other.grad = gradient.clone(), gradient.clone()
        optimizer = SAM([one], SGD, lr=1e-3, rho=0.0)
        optimizer.descend()
        SGD([other], lr=1e-3).step()
        assert torch.equal(one, other)
        assert optimizer.skipped_steps == 0


def test_a_clipped_gradients_norm_decides_whether_to_step() -> None:
    w = vector(1, 2)
    optimizer = SAM([w], SGD, lr=0.1, rho=0.0)
    for gradient in (1.0, INF):
        w.grad = torch.full_like(w, gradient)
        optimizer.descend(nn.utils.clip_grad_norm_([w], 1.0))
    torch.testing.assert_close(w.data, vector(1, 2).data - 0.1 * 0.5**0.5)
    assert optimizer.skipped_steps == 1


def test_a_step_without_gradients_is_the_base_optimizers() -> None:
    optimizer = SAM([vector(1)], SGD, lr=0.1)
    optimizer.descend()
    assert optimizer.skipped_steps == 0


# --- a mark that lives as long as the gradients


def test_a_gradient_scaler_around_the_base_optimizer_finds_the_climb_that_was_not_finite() -> None:
    w = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = SAM([w], SGD, lr=0.1, rho=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for first, made in ((NAN, False), (1.0, True)):
        before = w.detach().clone()
        scaler.scale((w * first).sum()).backward()
        with optimizer.at_worst_neighbor():
            scaler.scale(w.sum()).backward()
        scaler.step(optimizer.base_optimizer)
        scaler.update()
        optimizer.base_optimizer.zero_grad()
        assert (not torch.equal(w, before)) == made
    assert scaler.get_scale() == 2.0


def test_a_climb_that_was_not_finite_does_not_skip_a_later_step() -> None:
    w = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = SAM([w], SGD, lr=0.1, rho=0.5)
    (w * NAN).sum().backward()
    with optimizer.at_worst_neighbor():
        w.sum().backward()
    w.grad = None  # the caller leaves this step out
    w.sum().backward()
    optimizer.descend()
    torch.testing.assert_close(w.data, torch.tensor([0.9, 1.9]))


@pytest.mark.parametrize("way", ["context", "steps"])
def test_a_gradient_scaler_skips_counts_and_goes_on(way: str) -> None:
    w, plain = (nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(2))
    optimizer = SAM([w], SGD, lr=0.1, momentum=0.9, rho=1e-3)
    alone = SGD([plain], lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for first, second in ((1.0, 1.0), (INF, 1.0), (1.0, INF), (1.0, 2.0)):
        scaler.scale((w * first).sum()).backward()
        if way == "steps":
            optimizer.first_step(zero_grad=True)
            scaler.scale((w * second).sum()).backward()
        else:
            with optimizer.at_worst_neighbor():
                scaler.scale((w * second).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if first == 1.0 and second != INF:
            plain.grad = torch.full((2,), second)
            alone.step()
    torch.testing.assert_close(w, plain)
    assert optimizer.skipped_steps == 2
    assert scaler.get_scale() == 2.0**8


# --- where it is decided


def test_what_can_be_decided_on_the_device_is_asked_anew_each_time() -> None:
    w = nn.Parameter(torch.zeros(2, device="meta"))  # stands for any device but the CPU
    optimizer = SAM([w], SGD, lr=0.1, momentum=0.9, fused=True)
    [group] = optimizer.param_groups
    w.grad = torch.zeros_like(w)
    assert not optimizer.asynchronous  # a fused SGD cannot skip the step that makes its momentum
    optimizer.state[w]["momentum_buffer"] = torch.zeros_like(w)
    assert optimizer.asynchronous
    group["fused"] = False
    assert not optimizer.asynchronous
    group.update(fused=True, sigma=1.0)
    assert not optimizer.asynchronous
    group["sigma"] = 0.0
    assert optimizer.asynchronous
    optimizer.add_param_group({"params": [vector(1)]})
    assert not optimizer.asynchronous


def test_a_state_that_is_loaded_can_make_an_optimizer_wait() -> None:
    made = [nn.Parameter(torch.zeros(2, device="meta")) for _ in range(2)]
    fused, plain = (SAM([w], SGD, lr=0.1, fused=f) for w, f in zip(made, (True, False)))  # noqa: B905
    assert fused.asynchronous
    fused.load_state_dict(plain.state_dict())
    assert not fused.asynchronous
