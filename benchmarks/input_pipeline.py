"""How many images a second: batches made in memory against a DataLoader with two workers.

Crop, flip, normalisation and cutout on 10,000 random images of 32x32, in batches of 128.

    PYTHONPATH=. python benchmarks/input_pipeline.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from measure import compare, default_device, interleave, options, save
from settings import random_splits

IMAGES, BATCH = 10_000, 128


def main() -> None:
    parser = options("input pipelines", rounds=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = random_splits(IMAGES)
    batches = data.train_batches(BATCH, default_device())

    def in_memory() -> None:
        for _ in batches.shuffled(0):
            pass

    cases: dict[str, Callable[[], None]] = {}
    try:
        from torchvision_recipe import loader
    except ImportError:
        print("torchvision is not installed: its DataLoader is left out")
    else:

        def with_loader(workers: int) -> Callable[[], None]:
            def work() -> None:
                for _ in loader(data.train, BATCH, workers):
                    pass

            return work

        cases = {
            "DataLoader, 2 workers": with_loader(2),
            "DataLoader, no workers": with_loader(0),
        }
    cases["samtune, in memory"] = in_memory
    times = interleave(cases, arguments.rounds)
    base = next(iter(times))
    figures = compare(f"{IMAGES:,} images, crop, flip, normalise, cutout", times, base)
    for name, taken in times.items():
        speed = IMAGES / sorted(taken)[len(taken) // 2]
        print(f"{name}: {speed:,.0f} images/s")
        figures["cases"][name]["images_per_s"] = speed
    save("input_pipeline", figures, arguments.json)


if __name__ == "__main__":
    main()
