"""How much more a machine or a GPU trains when trials share it: 1, 2 and 4 at a time.

Trials are processes that divide the threads between them, as samtune's workers do; with
`--in-one-process` they are threads of this one, with nothing to start or to serialise.

    PYTHONPATH=. python benchmarks/packing.py
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from typing import Any

import torch
from measure import compare, default_device, interleave_timed, options, save
from settings import random_splits, trial

from samtune.tasks import build_task
from samtune.training.loop import sam_step
from samtune.training.state import set_up

AT_ONCE = (1, 2, 4)


def main() -> None:
    parser = options("concurrent trials", rounds=5)
    parser.add_argument("--steps", type=int, default=8, help="of each trial")
    parser.add_argument("--in-one-process", action="store_true")
    arguments = parser.parse_args()

    def seconds_a_step(trials: int) -> float:
        threads = max(1, arguments.threads // trials)
        if arguments.in_one_process:
            torch.set_num_threads(threads)
            taken = side_by_side(threading, trials, threads, arguments.steps)
        else:
            context = multiprocessing.get_context("spawn")
            taken = side_by_side(context, trials, threads, arguments.steps)
        return taken / (trials * arguments.steps)

    cases = {f"{n} at once": (lambda n=n: seconds_a_step(n)) for n in AT_ONCE}
    times = interleave_timed(cases, arguments.rounds, warm_up=0)
    where = "one process" if arguments.in_one_process else "processes"
    figures = compare(
        f"Time of the machine for one SAM step, trials as {where}", times, "1 at once"
    )
    save(f"packing-{where.split()[-1]}", figures, arguments.json)


def side_by_side(kind: Any, trials: int, threads: int, steps: int) -> float:
    """Seconds from the moment all trials are ready to the moment the last is done."""
    ready = kind.Barrier(trials + 1)
    start = getattr(kind, "Process", None) or kind.Thread
    arguments = (ready, threads, steps)
    workers = [start(target=work, args=arguments, daemon=True) for _ in range(trials)]
    for worker in workers:
        worker.start()
    ready.wait()
    started = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - started


def work(ready: Any, threads: int, steps: int) -> None:
    if threading.current_thread() is threading.main_thread():
        torch.set_num_threads(threads)
    device, data = default_device(), random_splits(64)
    state, task = set_up(trial(), data, device), build_task("classification")
    inputs, targets = next(iter(data.train_batches(64, device).shuffled(0)))
    sam_step(state, task, inputs, targets)
    ready.wait()
    for _ in range(steps):
        sam_step(state, task, inputs, targets)
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
