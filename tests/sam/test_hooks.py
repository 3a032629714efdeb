"""Hooks on SAM's step are called once a step, whichever way it is made."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from samtune.sam import SAM
from tests.sam.steps import SGD, vector


def plain(w: Tensor, optimizer: SAM, backward: Callable[[], None]) -> None:
    backward()
    optimizer.descend()


def context(w: Tensor, optimizer: SAM, backward: Callable[[], None]) -> None:
    backward()
    with optimizer.at_worst_neighbor():
        backward()
    optimizer.descend()


def two_steps(w: Tensor, optimizer: SAM, backward: Callable[[], None]) -> None:
    backward()
    optimizer.first_step(zero_grad=True)
    backward()
    optimizer.second_step()


def first_step_and_step(w: Tensor, optimizer: SAM, backward: Callable[[], None]) -> None:
    backward()
    optimizer.first_step(zero_grad=True)
    backward()
    optimizer.step()


def closure(w: Tensor, optimizer: SAM, backward: Callable[[], None]) -> None:
    backward()
    optimizer.step(backward)


def momentum(w: Tensor, optimizer: SAM, backward: Callable[[], None]) -> None:
    with optimizer.at_momentum_neighbor():
        backward()
    optimizer.descend()


ROUTES = [plain, context, two_steps, first_step_and_step, closure, momentum]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("finite", [True, False])
def test_hooks_are_called_once_around_the_update(route: Callable[..., None], finite: bool) -> None:
    w = vector(1, 2)
    optimizer = SAM([w], SGD, lr=0.1, momentum=0.9, rho=0.5)
    seen: list[tuple[str, list[float], bool]] = []

    def note(when: str, called_with: SAM) -> None:
        assert called_with is optimizer
        seen.append((when, w.tolist(), w.grad is not None))

    optimizer.register_step_pre_hook(lambda who, args, kwargs: note("before", who))
    optimizer.register_step_post_hook(lambda who, args, kwargs: note("after", who))

    def backward() -> None:
        (w.square().sum() * (1 if finite else float("nan"))).backward()

    for _ in range(2):
        seen.clear()
        start = w.tolist()
        route(w, optimizer, backward)
        # Before, the weights are at home with the gradients of the step.
        assert seen == [("before", start, True), ("after", w.tolist(), True)]
        assert (w.tolist() != start) == finite
        optimizer.zero_grad()
    assert optimizer.skipped_steps == (0 if finite else 2)


def test_a_hook_can_change_the_gradient_of_the_step() -> None:
    w = vector(3, 4)
    optimizer = SAM([w], SGD, lr=1.0, rho=0.5)

    def clip(who: SAM, args: object, kwargs: object) -> None:
        nn.utils.clip_grad_norm_([w], 1.0)

    optimizer.register_step_pre_hook(clip)
    (0.5 * w.square().sum()).backward()
    optimizer.step(lambda: (0.5 * w.square().sum()).backward())
    torch.testing.assert_close(w.data, vector(3 - 0.6, 4 - 0.8).data)
