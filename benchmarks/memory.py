"""What SAM and the data set take of the memory.

SAM: the most bytes that tensors hold at once while WRN-28-10 is trained with SAM, less those with
SGD alone, in copies of the parameters. Data: what each further trial of a node takes beyond
the first, in copies of a data set of CIFAR-10's size, padded for cropping.

    PYTHONPATH=. python benchmarks/memory.py
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch
from measure import options, save
from settings import random_splits, trial
from torch.profiler import ProfilerActivity, profile

from samtune.tasks import build_task
from samtune.training.loop import sam_step
from samtune.training.state import set_up

MEBI = 2**20
TRIALS = (1, 2, 4)
IMAGES = 50_000


def main() -> None:
    arguments = options("memory", rounds=1).parse_args()
    figures: dict[str, Any] = {"sam": sam()}
    try:
        import ray
    except ImportError:
        print("ray is not installed: the data set's part is left out")
    else:
        figures["data"] = data(ray)
    save("memory", figures, arguments.json)


def sam() -> dict[str, Any]:
    peaks = {}
    for name, setting in {"SGD": {"rho": 0.0}, "SAM": {}, "ASAM": {"variant": "asam"}}.items():
        peaks[name], parameters = train(setting)
    print("\nMost bytes held by tensors while WRN-28-10 is trained, batch 2")
    print("| case | MiB | beyond SGD, in copies of the parameters |")
    print("|---|---|---|")
    found = {}
    for name, peak in peaks.items():
        found[name] = {"peak_bytes": peak, "copies": (peak - peaks["SGD"]) / parameters}
        print(f"| {name} | {peak / MEBI:.0f} | {found[name]['copies']:.2f} |")
    return found


def train(setting: dict[str, Any]) -> tuple[int, int]:
    """The most bytes at once, from the model's making on, and the bytes of its parameters."""
    splits, config = random_splits(2, 2), trial(setting, depth=28, width=10, batch_size=2)
    cpu = torch.device("cpu")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        state, task = set_up(config, splits, cpu), build_task("classification")
        inputs, targets = next(iter(splits.train_batches(2, cpu).shuffled(0)))
        for _ in range(2):
            sam_step(state, task, inputs, targets)
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    changes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    parameters = sum(p.numel() * p.element_size() for p in state.model.parameters())
    return max(itertools.accumulate(changes)), parameters


def data(ray: Any) -> dict[str, Any]:
    """Private memory of actors that train from the object store, as the workers of a study do."""
    ray.init("local", num_cpus=max(TRIALS), include_dashboard=False, log_to_driver=False)
    splits = random_splits(IMAGES).to_share()
    size = splits.train.images.nbytes
    shared = ray.put(splits)
    del splits
    print(f"\nPrivate memory of a node's trials; the padded data set has {size / MEBI:.0f} MiB")
    print(
        "| trials | MiB before the data | MiB with it | copies of the data set beyond the store |"
    )
    print("|---|---|---|---|")
    found = {}
    for count in TRIALS:
        actors = [ray.remote(num_cpus=1)(Reader).remote() for _ in range(count)]
        before = sum(ray.get([actor.private_bytes.remote() for actor in actors]))
        ray.get([actor.epoch.remote([shared]) for actor in actors])
        after = sum(ray.get([actor.private_bytes.remote() for actor in actors]))
        copies = (after - before) / size
        found[count] = {"before_bytes": before, "after_bytes": after, "copies": copies}
        print(f"| {count} | {before / MEBI:.0f} | {after / MEBI:.0f} | {copies:.2f} |")
        for actor in actors:
            ray.kill(actor)
    ray.shutdown()
    return {"dataset_bytes": size, "trials": found}


class Reader:
    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._warm_up = list(random_splits(256).train_batches(64, torch.device("cpu")).shuffled(0))

    def epoch(self, shared: list[Any]) -> int:
        import ray

        self._splits = ray.get(shared[0])
        self._batches = self._splits.train_batches(64, torch.device("cpu"))
        return sum(len(targets) for _, targets in self._batches.shuffled(0))

    def private_bytes(self) -> int:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


if __name__ == "__main__":
    main()
