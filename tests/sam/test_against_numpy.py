"""An independent implementation in plain numpy: two layers, tanh, squared error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from samtune.sam import SAM
from tests.sam.steps import SGD


class NumpySam:
    """SAM and ASAM over SGD with momentum and weight decay, on a two-layer perceptron."""

    def __init__(self, values: list[np.ndarray], rhos, adaptive: bool, eta: float) -> None:
        self.values = [v.copy() for v in values]
        self.rhos, self.adaptive, self.eta = rhos, adaptive, eta
        self.momenta = [np.zeros_like(v) for v in values]

    @staticmethod
    def loss_and_gradients(values, x, y):
        w1, b1, w2, b2 = values
        hidden = np.tanh(x @ w1.T + b1)
        error = hidden @ w2.T + b2 - y
        d_out = 2 * error / error.size
        d_hidden = (d_out @ w2) * (1 - hidden**2)
        gradients = [d_hidden.T @ x, d_hidden.sum(0), d_out.T @ hidden, d_out.sum(0)]
        return (error**2).mean(), gradients

    def step(self, x, y) -> float:
        loss, gradients = self.loss_and_gradients(self.values, x, y)
        sizes = [np.abs(v) + self.eta if self.adaptive else np.ones_like(v) for v in self.values]
        norm = np.sqrt(sum(((t * g) ** 2).sum() for t, g in zip(sizes, gradients, strict=True)))
        neighbor = [
            v + rho * t**2 * g / norm
            for v, rho, t, g in zip(self.values, self.rhos, sizes, gradients, strict=True)
        ]
        _, gradients = self.loss_and_gradients(neighbor, x, y)
        for v, m, g in zip(self.values, self.momenta, gradients, strict=True):
            m[...] = 0.9 * m + g + 0.01 * v
            v -= 0.2 * m
        return float(loss)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("rhos", "adaptive", "eta"),
    [((0.3, 0.3), False, 0.0), ((0.5, 0.5), True, 0.0), ((0.5, 0.5), True, 0.1),
     ((0.4, 0.1), False, 0.0)],
)  # fmt: skip
def test_twenty_steps_agree_with_plain_numpy(rhos, adaptive: bool, eta: float, fused: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)).double()
    params = list(model.parameters())
    groups = [{"params": params[:2], "rho": rhos[0]}, {"params": params[2:], "rho": rhos[1]}]
    optimizer = SAM(
        groups, SGD, adaptive=adaptive, eta=eta, lr=0.2, momentum=0.9, weight_decay=0.01,
        fused=fused,
    )  # fmt: skip
    oracle = NumpySam(
        [p.detach().numpy() for p in params], [rhos[0]] * 2 + [rhos[1]] * 2, adaptive, eta
    )
    random = np.random.default_rng(0)
    for _ in range(20):
        x, y = random.normal(size=(16, 5)), random.normal(size=(16, 2))
        inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        with optimizer.at_worst_neighbor():
            nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.descend()
        optimizer.zero_grad()
        assert loss.item() == pytest.approx(oracle.step(x, y), abs=1e-10, rel=1e-10)
    for p, value in zip(params, oracle.values, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), value, atol=1e-10)
