"""Several processes: sharded weights move, norms are everyone's, all skip the same steps."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

from samtune.sam import SAM
from tests.sam.recipes import run_recipe
from tests.sam.steps import CLIMBS, SGD, assert_same

INPUTS = torch.linspace(-1, 1, 40).reshape(10, 4)
NAN = float("nan")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))


def loss(model: nn.Module, inputs: Tensor = INPUTS) -> Tensor:
    return model(inputs).square().sum()


def whole(model: nn.Module) -> dict[str, Tensor]:
    """All weights, gathered if they are sharded, and copied."""
    found = {k: v.detach() for k, v in model.state_dict().items()}
    return {k: (v.full_tensor() if hasattr(v, "to_local") else v).clone() for k, v in found.items()}


@pytest.fixture
def _one_process() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded_net() -> nn.Sequential:
    model = net()
    mesh = dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    return model


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("climb", [*CLIMBS, "momentum"], ids=str)
def test_sharded_weights_climb_come_home_and_train_as_whole_ones(climb: Any) -> None:
    settings = {"lr": 0.05, "momentum": 0.9, "rho": 1.0, **({} if climb == "momentum" else climb)}
    trained = []
    for model in (net(), sharded_net()):
        optimizer = SAM(model.parameters(), SGD, **settings)
        found = []
        for _ in range(3):
            before = whole(model)
            if climb == "momentum":
                place = optimizer.at_momentum_neighbor()
            else:
                loss(model).backward()
                place = optimizer.at_worst_neighbor()
            with place:
                at_neighbor = loss(model)
                at_neighbor.backward()
            assert_same(before, whole(model))
            found.append(at_neighbor.item())
            optimizer.descend()
            optimizer.zero_grad()
            found.append(loss(model).item())
            loss(model).backward()  # resharding, as every backward pass does
            optimizer.zero_grad()
        trained.append((found, whole(model)))
    (losses, weights), (sharded_losses, sharded_weights) = trained
    assert sharded_losses == pytest.approx(losses, rel=1e-5)
    for name in weights:
        torch.testing.assert_close(weights[name], sharded_weights[name])


@pytest.mark.usefixtures("_one_process")
def test_sharded_weights_are_not_stepped_with_what_is_not_finite() -> None:
    model = sharded_net()
    optimizer = SAM(model.parameters(), SGD, lr=0.05, rho=1.0)
    before = whole(model)
    for first, second in ((NAN, 1.0), (1.0, NAN)):
        (loss(model) * first).backward()
        with optimizer.at_worst_neighbor():
            (loss(model) * second).backward()
        optimizer.descend()
        optimizer.zero_grad()
    assert_same(before, whole(model))
    assert optimizer.skipped_steps == 2


@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("use_orig_params", [True, False])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_the_first_fsdp_is_refused_in_a_sentence(use_orig_params: bool) -> None:
    model = FullyShardedDataParallel(
        net(), use_orig_params=use_orig_params, device_id=torch.device("cpu")
    )
    with pytest.raises(ValueError, match="fully_shard instead"):
        SAM(model.parameters(), SGD, lr=0.1)


# --- two processes


def run_in_two(work: Any, folder: Path) -> list[dict[str, Any]]:
    """What each rank returned; an exception in one is an exception here."""
    mp.spawn(_rank, args=(work, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def _rank(rank: int, work: Any, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    try:
        torch.save(work(rank), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def m_sharpness_step(model: Any, optimizer: SAM, inputs: Tensor, first_is: float = 1.0) -> None:
    with model.no_sync():
        (loss(model, inputs) * first_is).backward()
    with optimizer.at_worst_neighbor():
        loss(model, inputs).backward()
    optimizer.descend()
    optimizer.zero_grad()


def in_both(rank: int) -> dict[str, Any]:
    """Steps of which rank 1 alone has a climb that is not finite in the second."""
    inputs = INPUTS.split(5)[rank]
    found: dict[str, Any] = {}
    model = net()
    parallel = DistributedDataParallel(model)
    optimizer = SAM(model.parameters(), SGD, rho=0.5, lr=0.05, momentum=0.9)
    steps = []
    for first_is in (1.0, NAN if rank else 1.0, 1.0):
        m_sharpness_step(parallel, optimizer, inputs, first_is)
        steps.append(whole(model))
    found["ddp"] = steps, optimizer.skipped_steps

    model = sharded_net()
    optimizer = SAM(model.parameters(), SGD, rho=0.5, lr=0.05, momentum=0.9)
    steps = []
    for first_is in (1.0, NAN if rank else 1.0, 1.0):
        (loss(model, inputs) * first_is).backward()
        with optimizer.at_worst_neighbor():
            loss(model, inputs).backward()
        optimizer.descend(nn.utils.clip_grad_norm_(model.parameters(), 1e6))
        optimizer.zero_grad()
        steps.append(whole(model))
    found["shards"] = steps, optimizer.skipped_steps

    model = net()
    ran = run_recipe("DistributedDataParallel", model, [(inputs, None)] * 3, sum_of_squares)
    found["recipe"] = [whole(model)], ran["optimizer"].skipped_steps
    return found


def sum_of_squares(outputs: Tensor, _: None) -> Tensor:
    return outputs.square().sum()


def alone(
    skips: tuple[bool, ...], *, climb_together: bool = False, rho: float = 0.5, lr: float = 0.05
) -> list[dict[str, Tensor]]:
    """The same steps in one process: each half of the batch climbs, then their mean steps."""
    halves = INPUTS.split(5)
    model = net()
    optimizer = SGD(model.parameters(), lr=lr, momentum=0.9)
    steps = []
    for skip in skips:
        optimizer.zero_grad()
        for half in halves:
            neighbor = copy.deepcopy(model)
            neighbor.zero_grad()
            climbing = loss(neighbor, INPUTS) / 2 if climb_together else loss(neighbor, half)
            gradients = torch.autograd.grad(climbing, list(neighbor.parameters()))
            norm = torch.cat([g.flatten() for g in gradients]).norm()
            with torch.no_grad():
                for p, g in zip(neighbor.parameters(), gradients, strict=True):
                    p.add_(rho * g / norm)
            (loss(neighbor, half) / 2).backward()
            for p, there in zip(model.parameters(), neighbor.parameters(), strict=True):
                p.grad = there.grad if p.grad is None else p.grad + there.grad
        if not skip:
            optimizer.step()
        steps.append(whole(model))
    return steps


def test_two_processes_take_the_same_steps_and_skip_the_same(tmp_path: Path) -> None:
    ranks = run_in_two(in_both, tmp_path)
    for way, expected, expected_skips in (
        ("ddp", alone((False, True, False)), 1),
        ("shards", alone((False, True, False), climb_together=True), 1),
        ("recipe", alone((False, False, False), rho=0.05, lr=0.1)[-1:], 0),
    ):
        for steps, skips in (found[way] for found in ranks):
            assert skips == expected_skips, way
            for step, there in zip(steps, expected, strict=True):
                for name in there:
                    torch.testing.assert_close(step[name], there[name])
        for one, other in zip(ranks[0][way][0], ranks[1][way][0], strict=True):
            assert_same(one, other)
