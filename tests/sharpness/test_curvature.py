"""Eigenvalues and trace are those of the matrix itself, computed as a whole elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, hessian

from samtune.sharpness.curvature import NoCurvatureError, curvature
from samtune.sharpness.loss import FixedLoss
from tests.sharpness.surfaces import Quadratic, TwoLayers, classifying, loss_of


def matrix(loss: FixedLoss) -> np.ndarray:
    """The whole Hessian, by torch.func."""
    model = loss.model
    inputs, targets = (torch.cat(part) for part in zip(*loss.batches, strict=True))
    params = {k: p.detach() for k, p in model.named_parameters() if p.requires_grad}

    def value(params: dict[str, Tensor]) -> Tensor:
        return F.cross_entropy(functional_call(model, params, (inputs,)), targets)

    blocks = hessian(value)(params)
    return torch.cat(
        [
            torch.cat([blocks[a][b].reshape(params[a].numel(), -1) for b in params], 1)
            for a in params
        ]
    ).numpy()


def smooth() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


def test_the_curvature_of_a_quadratic_is_what_it_was_made_of():
    found = curvature(loss_of(Quadratic((1, 5, 2, 7, 3, 4, 6, 0), (1,) * 8)))
    assert found.eigenvalues == pytest.approx([7, 6, 5, 4, 3], rel=1e-3)
    # Random signs give the trace of a diagonal matrix exactly.
    assert found.trace == pytest.approx(28, rel=1e-4)
    assert found.trace_error < 1e-3


def test_the_largest_eigenvalues_are_those_of_the_whole_matrix():
    loss = classifying(smooth(), batches=3)
    exact = np.linalg.eigvalsh(matrix(loss))[::-1]
    assert curvature(loss).eigenvalues == pytest.approx(exact[:5], rel=2e-3)


def test_the_trace_is_unbiased_and_knows_its_error():
    loss = classifying(smooth())
    whole = matrix(loss).astype(np.float64)
    values, vectors = np.linalg.eigh(whole)
    rest = whole - vectors[:, -5:] * values[-5:] @ vectors[:, -5:].T

    def spread(of: np.ndarray) -> float:
        """The standard error of Hutchinson's estimate of a matrix' trace by 100 random signs."""
        return float(np.sqrt(2 * ((of**2).sum() - (np.diag(of) ** 2).sum()) / 100))

    found = curvature(loss, probes=100)
    assert found.trace == pytest.approx(np.trace(whole), abs=4 * spread(rest))
    assert found.trace_error == pytest.approx(spread(rest), rel=0.35)
    assert spread(rest) < spread(whole)


def test_the_same_seed_gives_the_same_numbers():
    loss = classifying(smooth())
    assert curvature(loss, seed=5) == curvature(loss, seed=5)


def test_frozen_and_unused_weights_are_left_out():
    model = smooth()
    model.unused = nn.Linear(2, 2)
    model[0].requires_grad_(False)
    used = [classifying(nn.Sequential(*model[:3]))]
    exact = np.linalg.eigvalsh(matrix(used[0]))[::-1]

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole = model

        def forward(self, inputs: Tensor) -> Tensor:
            return self.whole[2](self.whole[1](self.whole[0](inputs)))

    assert curvature(classifying(First())).eigenvalues == pytest.approx(exact[:5], rel=2e-3)


def test_the_hessian_is_not_the_same_for_the_same_function():
    one, other = (curvature(classifying(TwoLayers(f))).eigenvalues[0] for f in (1.0, 8.0))
    assert other > 5 * one


class AlwaysDropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(F.dropout(inputs, 0.5, training=True))


def test_a_loss_that_differs_from_pass_to_pass_is_found_out(capsys):
    with pytest.raises(NoCurvatureError, match="differs from one pass to the next"):
        curvature(classifying(AlwaysDropping()))
    assert capsys.readouterr().out == ""


class OnceOnly(torch.autograd.Function):
    """Has a gradient, and no second one."""

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


class Undifferentiable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return OnceOnly.apply(self.last(inputs))


def test_a_model_without_second_derivatives_is_said_to_have_none():
    with pytest.raises(NoCurvatureError, match="RuntimeError: .*OnceOnly|RuntimeError: "):
        curvature(classifying(Undifferentiable()))
