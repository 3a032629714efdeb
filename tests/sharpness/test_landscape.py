"""Filter-normalised directions, and the loss along them as a formula has it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from samtune.sharpness.landscape import along_line, directions, on_plane, positions
from samtune.sharpness.loss import FixedLoss
from tests.sharpness.surfaces import Quadratic, TwoLayers, classifying, loss_of


def any_loss(model: nn.Module) -> FixedLoss:
    return FixedLoss(model, None, [])


def test_the_loss_along_directions_is_the_formula():
    loss = loss_of(Quadratic((1, 4), (3, 1)))
    first, second = ([torch.tensor([d], dtype=torch.float64)] for d in ((1.0, 0.0), (0.0, 2.0)))
    at = positions(5)
    assert at == [-1, -0.5, 0, 0.5, 1]
    line = along_line(loss, first, at)
    assert line == pytest.approx([0.5 * ((3 + a) ** 2 + 4) for a in at])
    plane = on_plane(loss, [first, second], at, [-0.5, 0.25])
    for b, row in zip((-0.5, 0.25), plane, strict=True):
        assert row == pytest.approx([0.5 * ((3 + a) ** 2 + 4 * (1 + 2 * b) ** 2) for a in at])
    assert loss.model.w.tolist() == [[3.0, 1.0]]


def test_each_filter_is_as_long_as_the_weights_own():
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ConvTranspose2d(5, 3, 2), nn.Linear(7, 4)
    )
    loss = any_loss(model)
    for direction in directions(loss, 2, seed=0):
        found = dict(zip([name for name, _ in model.named_parameters()], direction, strict=True))
        for name, axis in (("0.weight", 0), ("2.weight", 1), ("3.weight", 0)):
            weights = model.get_parameter(name)
            others = [i for i in range(weights.ndim) if i != axis]
            norms = [torch.linalg.vector_norm(t, dim=others) for t in (found[name], weights)]
            assert torch.allclose(*norms)
        for name in ("0.bias", "1.weight", "1.bias", "2.bias", "3.bias"):
            assert not found[name].any()


def test_a_filter_of_zeros_stays_and_the_others_are_drawn_by_the_seed():
    model = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        model.weight[0] = 0
    one, again, other = (directions(any_loss(model), 2, seed)[0][0] for seed in (1, 1, 2))
    assert not one[0].any()
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    both = directions(any_loss(model), 2, 1)
    assert not torch.allclose(both[0][0], both[1][0])


def test_the_same_function_has_the_same_landscape_whatever_its_scale():
    found = []
    for factor in (1.0, 8.0):
        loss = classifying(TwoLayers(factor))
        both = directions(loss, 2, 0)
        plane = on_plane(loss, both, positions(3), positions(3))
        found.append([value for row in plane for value in row])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_the_weights_are_put_back_whatever_happens():
    loss = classifying(TwoLayers())
    before = [p.detach().clone() for p in loss.params]

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        along_line(loss, directions(loss, 1, 0)[0], [1.0], fail)
    assert all(torch.equal(p, b) for p, b in zip(loss.params, before, strict=True))


def test_what_is_not_finite_is_left_open():
    loss = loss_of(Quadratic((1, 4), (3, 1)))
    assert along_line(loss, [torch.full((1, 2), 1e200, dtype=torch.float64)], [0.0, 1.0]) == [
        6.5,
        None,
    ]


def test_frozen_weights_are_not_moved():
    model = TwoLayers()
    model.first.requires_grad_(False)
    [direction] = directions(classifying(model), 1, 0)
    assert [d.shape for d in direction] == [model.second.weight.shape]
