"""A whole training epoch: samtune's defaults against the well-known recipe.

The recipe is fp32, NCHW, a DataLoader with two workers, SAM tensor by tensor; WRN-16-2, batch 64.

    PYTHONPATH=. python benchmarks/epoch.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from measure import compare, default_device, interleave, options, save
from settings import random_splits, trial
from torch import nn

from samtune.sam import frozen_batchnorm_stats
from samtune.tasks import build_task
from samtune.training.loop import sam_step
from samtune.training.state import new_model, set_up


def main() -> None:
    parser = options("a whole epoch", rounds=5)
    parser.add_argument("--images", type=int, default=1024)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cases = {
        "samtune, fp32": ours("fp32", arguments.images),
        "samtune, defaults": ours("auto", arguments.images),
    }
    try:
        cases = {"the well-known recipe": recipe(arguments.images), **cases}
    except ImportError:
        print("torchvision is not installed: the recipe is left out")
    title = f"SAM, {arguments.images} images, WRN-16-2, batch 64"
    times = interleave(cases, arguments.rounds)
    figures = compare(title, times, next(iter(times)))
    save("epoch", {"images": arguments.images, **figures}, arguments.json)


def ours(precision: str, images: int) -> Callable[[], None]:
    device, data = default_device(), random_splits(images)
    state = set_up(trial(precision=precision), data, device)
    task, batches = build_task("classification"), data.train_batches(64, device)

    def epoch() -> None:
        losses = [sam_step(state, task, *batch) for batch in batches.shuffled(0)]
        torch.stack(losses).mean().item()

    return epoch


def recipe(images: int) -> Callable[[], None]:
    from torchvision_recipe import PerTensorSam, loader

    device, data = default_device(), random_splits(images)
    torch.manual_seed(0)
    model = new_model(trial(), data).to(device)
    sam = PerTensorSam(model, 0.05, lr=0.1, momentum=0.9, weight_decay=5e-4)
    batches = loader(data.train, 64)

    def epoch() -> None:
        total = 0.0
        for inputs, targets in batches:
            x, y = inputs.to(device), targets.to(device)
            passes = []

            def backward(x: torch.Tensor = x, y: torch.Tensor = y, passes: list[float] = passes):
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                passes.append(loss.item())

            with frozen_batchnorm_stats(model):  # costs nothing either way
                sam.step(backward)
            total += passes[0]

    return epoch


if __name__ == "__main__":
    main()
