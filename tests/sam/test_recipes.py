"""The recipes of docs/sam.md do what SAM written out by hand does.

That of DistributedDataParallel runs in `test_processes.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.sam.recipes import RECIPES, run_recipe
from tests.sam.steps import SGD, batch, weights

BATCHES = [batch(seed) for seed in range(4)]


def net(*, norm: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.Tanh(), nn.Flatten(),
        nn.Linear(4 * 36, 3),
    )  # fmt: skip


def by_hand(
    model: nn.Module,
    *,
    max_norm: float = float("inf"),
    autocast: torch.dtype | None = None,
    cosine: bool = False,
) -> nn.Module:
    """SAM over SGD with momentum, with the recipes' numbers."""
    params = list(model.parameters())
    optimizer = SGD(params, lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=len(BATCHES))

    def gradients(inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        place: AbstractContextManager[Any] = (
            torch.autocast("cpu", dtype=autocast) if autocast else nullcontext()
        )
        with place:
            loss = nn.functional.cross_entropy(model(inputs), targets)
        return torch.autograd.grad(loss, params)

    for inputs, targets in BATCHES:
        first = gradients(inputs, targets)
        home = weights(model)
        norm = torch.cat([g.flatten() for g in first]).norm()
        with torch.no_grad():
            for p, g in zip(params, first, strict=True):
                p.add_(0.05 * g / norm)
        second = gradients(inputs, targets)
        model.load_state_dict(home)  # its statistics, too
        for p, g in zip(params, second, strict=True):
            p.grad = g
        nn.utils.clip_grad_norm_(params, max_norm)
        optimizer.step()
        if cosine:
            schedule.step()
    return model


def assert_near(one: nn.Module, other: nn.Module, **tolerance: float) -> None:
    ours, theirs = weights(one), weights(other)
    moved = max((ours[k] - v).abs().max().item() for k, v in weights(net()).items() if k in ours)
    assert moved > 0.05  # or nearness would say nothing
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], **tolerance)


def test_every_recipe_is_tested() -> None:
    tested = {"", "Closure", "Two steps", "Clipping", "Autocast", "Gradient scaler"}
    tested |= {"Gradient accumulation", "torch.compile", "DistributedDataParallel", "fully_shard"}
    assert RECIPES.keys() == tested


@pytest.mark.parametrize(
    ("title", "settings"),
    [("", {"cosine": True}), ("Closure", {}), ("Two steps", {}), ("Clipping", {"max_norm": 1.0}),
     ("Autocast", {"autocast": torch.bfloat16})],
)  # fmt: skip
def test_a_recipe_is_sam_as_one_would_write_it(title: str, settings: dict[str, Any]) -> None:
    model = net()
    ran = run_recipe(title, model, BATCHES)
    assert_near(model, by_hand(net(), **settings), atol=1e-6, rtol=1e-5)
    assert ran["optimizer"].skipped_steps == 0


def test_the_gradient_scalers_recipe_changes_no_more_than_rounding() -> None:
    model = net()
    ran = run_recipe("Gradient scaler", model, BATCHES)
    assert_near(model, by_hand(net(), max_norm=1.0, autocast=torch.float16), atol=5e-3, rtol=1e-2)
    assert ran["optimizer"].skipped_steps == 0
    assert ran["scaler"].get_scale() == 2.0**16


def test_the_gradient_scalers_recipe_skips_and_counts_an_overflow() -> None:
    model = net()
    before = {n: p.clone() for n, p in model.named_parameters()}
    inputs, targets = BATCHES[0]
    ran = run_recipe("Gradient scaler", model, [(inputs * 1e6, targets)])  # beyond float16
    assert ran["optimizer"].skipped_steps == 1
    assert ran["scaler"].get_scale() == 2.0**15
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_accumulated_micro_batches_are_the_batch() -> None:
    model = net(norm=False)
    run_recipe("Gradient accumulation", model, BATCHES)
    assert_near(model, by_hand(net(norm=False)), atol=1e-6, rtol=1e-5)


def test_the_compiled_recipe_makes_two_graphs_and_the_same_steps() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = net()
    model.compile = partial(model.compile, backend="aot_eager")  # the graphs, without their code
    run_recipe("torch.compile", model, BATCHES)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert_near(model, by_hand(net()), atol=1e-5, rtol=1e-4)


@pytest.fixture
def _one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("_one_process")
@pytest.mark.skipif(torch.accelerator.is_available(), reason="it would shard onto the accelerator")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_sharded_recipe_makes_the_same_steps() -> None:
    model = net(norm=False)
    run_recipe("fully_shard", model, BATCHES)
    expected = by_hand(net(norm=False)).state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor.full_tensor(), expected[name], atol=1e-6, rtol=1e-5)
