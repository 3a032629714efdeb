"""A small network and steps on it, for the tests of SAM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from samtune.sam import SAM, frozen_batchnorm_stats

SGD = torch.optim.SGD
BASES = [
    (SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "fused": True}),
    (torch.optim.Adam, {"lr": 1e-2}),
    (torch.optim.AdamW, {"lr": 1e-2}),
    (torch.optim.AdamW, {"lr": 1e-2, "fused": True}),
]
CLIMBS = [{}, {"adaptive": True}, {"adaptive": True, "eta": 0.01}, {"sigma": 1.0}]


def vector(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(),
        nn.Linear(4 * 36, 3),
    )  # fmt: skip


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 1, 8, 8, generator=generator), torch.randint(
        0, 3, (8,), generator=generator
    )


def backward(model: nn.Module, seed: int = 0) -> None:
    inputs, targets = batch(seed)
    nn.functional.cross_entropy(model(inputs), targets).backward()


def sam_step(model: nn.Module, optimizer: SAM, seed: int) -> None:
    torch.manual_seed(seed)
    backward(model, seed)
    with optimizer.at_worst_neighbor(), frozen_batchnorm_stats(model):
        backward(model, seed)
    optimizer.descend()
    optimizer.zero_grad()


def fail_after(work, *args) -> None:
    work(*args)
    raise ZeroDivisionError


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name
