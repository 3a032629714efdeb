"""The rise within rho is what a hand computes, and a lower bound where that is all one can find."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from samtune.sharpness.rise import loss_rise
from tests.sharpness.surfaces import Quadratic, TwoLayers, classifying, loss_of


def test_one_step_goes_rho_along_the_gradient():
    # The gradient at (3, 1) is (3, 4), of norm 5: e = (0.3, 0.4).
    rise = loss_rise(loss_of(Quadratic((1, 4), (3, 1))), 0.5)
    assert rise.one_step == pytest.approx(0.5 * 5 + 0.5 * (1 * 0.3**2 + 4 * 0.4**2))


def test_several_steps_find_the_highest_point_of_the_ball():
    angle = np.linspace(0, 2 * np.pi, 200_001)
    x, y = 3 + 2 * np.cos(angle), 1 + 2 * np.sin(angle)
    highest = (0.5 * (x**2 + 4 * y**2)).max() - 0.5 * (9 + 4)
    rise = loss_rise(loss_of(Quadratic((1, 4), (3, 1))), 2.0, steps=20)
    assert rise.several_steps == pytest.approx(highest, rel=1e-6)
    assert rise.one_step < highest * 0.999


def test_at_a_minimum_the_rise_is_that_of_the_largest_curvature():
    rise = loss_rise(loss_of(Quadratic((1, 16, 2), (1e-9, 1e-9, 1e-9))), 0.5)
    assert rise.several_steps == pytest.approx(0.5 * 16 * 0.5**2, rel=1e-4)


def test_the_adaptive_step_is_relative_to_each_weight():
    w, a, rho = np.array([3.0, 1.0]), np.array([1.0, 4.0]), 0.5
    g = a * w
    e = rho * w**2 * g / np.linalg.norm(w * g)
    assert np.linalg.norm(e / w) == pytest.approx(rho)
    rise = loss_rise(loss_of(Quadratic(a, w)), rho, adaptive=True)
    assert rise.one_step == pytest.approx(float((a * (w + e) ** 2 - a * w**2).sum() / 2))


def test_it_is_a_mean_over_batches_with_its_standard_error():
    # Times 1 and times 3: rises of 2.865 and 8.595, as in the first test.
    rise = loss_rise(loss_of(Quadratic((1, 4), (3, 1)), 1.0, 3.0), 0.5, steps=1)
    assert rise.one_step == pytest.approx(2 * 2.865)
    assert rise.error == pytest.approx(2.865)  # sqrt(2) * 2.865 / sqrt(2)
    assert loss_rise(loss_of(Quadratic((1, 4), (3, 1))), 0.5).error is None


def test_the_weights_come_home_bit_for_bit():
    loss = classifying(TwoLayers())
    before = [p.detach().clone() for p in loss.params]
    loss_rise(loss, 0.7)
    loss_rise(loss, 0.7, adaptive=True)
    assert all(torch.equal(p, b) for p, b in zip(loss.params, before, strict=True))
    assert all(p.grad is None for p in loss.params)


class Exponential(nn.Module):
    """exp(w), which float32 cannot hold from w = 89 on, less a share of it."""

    def __init__(self, share: float = 0.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([40.0]))
        self.share = share

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.w.exp() - self.share * self.w.exp()


@pytest.mark.parametrize("share", [0.0, 0.5], ids=["infinite", "no number"])
def test_a_loss_that_is_not_finite_up_there_has_no_rise(share):
    rise = loss_rise(loss_of(Exponential(share)), 60.0, steps=1)
    assert (rise.one_step, rise.several_steps, rise.error) == (None, None, None)
    assert loss_rise(loss_of(Exponential()), 1.0, steps=1).one_step == pytest.approx(
        math.exp(41) - math.exp(40), rel=1e-4
    )


def test_only_the_adaptive_rise_is_the_same_for_the_same_function():
    one, other = classifying(TwoLayers()), classifying(TwoLayers(factor=8.0))
    assert one.value() == pytest.approx(other.value())
    plain = [loss_rise(loss, 0.3).several_steps for loss in (one, other)]
    adaptive = [loss_rise(loss, 0.3, adaptive=True).several_steps for loss in (one, other)]
    assert plain[1] > 1.5 * plain[0]
    assert adaptive[0] == pytest.approx(adaptive[1], rel=1e-3)


def test_frozen_weights_do_not_climb():
    model = TwoLayers()
    whole = loss_rise(classifying(model), 0.3).several_steps
    model.first.requires_grad_(False)
    part = loss_rise(classifying(model), 0.3).several_steps
    assert 0 < part < whole
