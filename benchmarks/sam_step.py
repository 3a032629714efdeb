"""What a step of SAM costs, and how much of that is its own bookkeeping.

Bookkeeping (climb, come home, base step; no passes) on the parameters of WRN-28-10 against
pytorch_optimizer's SAM; whole steps of WRN-16-2 at batch 64 against plain SGD and against two bare
passes, the limit.

    PYTHONPATH=. python benchmarks/sam_step.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from measure import compare, default_device, interleave, interleave_timed, options, save, seconds
from settings import random_splits, trial
from torch import nn

from samtune.models import build_model
from samtune.sam import SAM
from samtune.tasks import build_task
from samtune.training.loop import sam_step
from samtune.training.precision import autocast
from samtune.training.state import set_up

try:
    from pytorch_optimizer import SAM as PEER
except ImportError:
    PEER = None

SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
CLIMB = {"ascent_fraction": 0.25}
VARIANTS: dict[str, dict[str, Any]] = {
    "SGD": {"rho": 0.0},
    "SAM": {},
    "ASAM": {"variant": "asam"},
    "ASAM, |w| + eta": {"variant": "asam_eta"},
    "F-SAM": {"variant": "fsam"},
    "SAM-ON": {"variant": "sam_on"},
    "MSAM": {"variant": "msam"},
    "climb on 1/4": CLIMB,
    "climb on 1/4 in bf16": {**CLIMB, "ascent_precision": "bf16"},
}


def main() -> None:
    parser = options("steps of SAM", rounds=11)
    parser.add_argument("--precision", default="fp32", choices=["auto", "fp32", "bf16", "fp16"])
    parser.add_argument("--only", choices=["bookkeeping", "steps"])
    parser.add_argument("--cases", nargs="+", help="of the steps, beside SGD; default is all")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if PEER is None:
        print("pytorch_optimizer is not installed: its SAM is left out")
    figures: dict[str, Any] = {}
    if arguments.only != "steps":
        for adaptive in (False, True):
            name = "ASAM" if adaptive else "SAM"
            figures[f"bookkeeping of {name}"] = bookkeeping(adaptive, arguments.rounds)
    if arguments.only != "bookkeeping":
        figures["steps"] = steps(arguments.precision, arguments.rounds, arguments.cases)
    save("sam_step", figures, arguments.json)


def bookkeeping(adaptive: bool, rounds: int) -> dict[str, Any]:
    cases = {
        "samtune": bookkeeping_case(SAM, adaptive),
        "samtune, fused SGD": bookkeeping_case(SAM, adaptive, fused=True),
    }
    if PEER:
        cases = {"pytorch_optimizer": bookkeeping_case(PEER, adaptive), **cases}
    title = f"Bookkeeping of {'ASAM' if adaptive else 'SAM'}, the parameters of WRN-28-10"
    return compare(title, interleave_timed(cases, rounds, warm_up=2), next(iter(cases)))


def bookkeeping_case(optimizer_class: Any, adaptive: bool, **extra: Any) -> Callable[[], float]:
    torch.manual_seed(0)
    model = build_model("wide_resnet", num_classes=10, in_channels=3, depth=28, width_factor=10)
    model.to(default_device(), memory_format=torch.channels_last)
    optimizer = optimizer_class(
        model.parameters(), torch.optim.SGD, rho=0.05, adaptive=adaptive, **SGD, **extra
    )
    gradients = [torch.empty_like(p) for p in model.parameters()]

    def once() -> float:
        # Filled anew, outside the timing: samtune's climb uses the gradients' memory.
        give_gradients(model, gradients)
        taken = seconds(optimizer.first_step)
        give_gradients(model, gradients)
        return taken + seconds(optimizer.second_step)

    return once


def give_gradients(model: nn.Module, gradients: list[torch.Tensor]) -> None:
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.grad = gradient.fill_(1e-3)


def steps(precision: str, rounds: int, only: Sequence[str] | None) -> dict[str, Any]:
    device, data = default_device(), random_splits(64)
    task = build_task("classification")
    inputs, targets = next(iter(data.train_batches(64, device).shuffled(0)))
    cases: dict[str, Callable[[], Any]] = {}
    for name, sam in VARIANTS.items():
        state = set_up(trial(sam, precision=precision), data, device)
        cases[name] = lambda state=state: sam_step(state, task, inputs, targets)
    cases["SAM each 5th step, mean of 5"] = many(trial({"every": 5}, precision=precision), 5)
    late = trial({"start_fraction": 0.875}, precision=precision)
    cases["SAM in the last 1/8, mean of 8"] = many(late, 8, epoch_of_each_step=True)

    bare = set_up(trial(precision=precision), data, device)

    def two_passes() -> None:
        for _ in range(2):
            with autocast(bare.precision, device):
                outputs = bare.model(inputs)
            task.loss(outputs.float(), inputs, targets).backward()
            bare.optimizer.zero_grad()

    cases["two bare passes"] = two_passes
    if PEER:
        cases["SAM of pytorch_optimizer"] = peer_step(precision)
    if only:
        cases = {name: cases[name] for name in ("SGD", *only)}
    times = interleave(cases, rounds)
    for name in times:
        if " mean of " in name:
            count = int(name.rsplit(maxsplit=1)[-1])
            times[name] = [taken / count for taken in times[name]]
    title = f"Steps of WRN-16-2, batch 64, {bare.precision}, channels_last"
    return {"precision": bare.precision, **compare(title, times, "SGD")}


def many(config: Any, count: int, *, epoch_of_each_step: bool = False) -> Callable[[], None]:
    device, data = default_device(), random_splits(64)
    task, state = build_task("classification"), set_up(config, data, device)
    inputs, targets = next(iter(data.train_batches(64, device).shuffled(0)))

    def work() -> None:
        for i in range(count):
            if epoch_of_each_step:
                state.epoch = i
            sam_step(state, task, inputs, targets)

    return work


def peer_step(precision: str) -> Callable[[], None]:
    device, data = default_device(), random_splits(64)
    task = build_task("classification")
    state = set_up(trial(precision=precision), data, device)
    inputs, targets = next(iter(data.train_batches(64, device).shuffled(0)))
    optimizer = PEER(state.model.parameters(), torch.optim.SGD, rho=0.05, **SGD)

    def backward() -> None:
        with autocast(state.precision, device):
            outputs = state.model(inputs)
        task.loss(outputs.float(), inputs, targets).backward()

    def step() -> None:
        backward()
        optimizer.first_step(zero_grad=True)
        backward()
        optimizer.second_step(zero_grad=True)

    return step


if __name__ == "__main__":
    main()
