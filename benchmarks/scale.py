"""What does a study of 10,000 trials cost beside its training?

    python benchmarks/scale.py [--trials 100 1000 10000] [--samplers random tpe] [--storage FOLDER]

Learning curves recorded once (`record_curves.py`) are replayed through samtune's own search: its
sampler, trial scheduler, journals, study folder and shipper, with simulated workers and without
Ray. Four workers on virtual time write their journals as real ones do; what they write is not
counted, what the driver does is. Then the study is read (`show`, `list`, resume) and shipped into
a new sqlite database. Each part runs in a process of its own, whose memory is the part's.

Seconds are of the processor: unlike the clock's they mean the same on a busy machine. What they
leave out is waiting for the disk. `--storage /dev/shm` keeps that out of the clock's as well.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from measure import RESULTS, save
from search import WORKERS, Landscape

from samtune.config.schema import StudyConfig
from samtune.study.folder import StudyFolder
from samtune.study.journal import Entry, Journal, now_ms
from samtune.study.study import Study
from samtune.study.trial_folder import Outcome, trial_number
from samtune.tuning.run import Silent, extended
from samtune.tuning.search import Search

STUDY = "wrn_rho"
MOST_TPE = 1000  # trials; beyond it TPE's own fits are all one would see
EMPTY_STUDIES = 1000
ENOUGH_S = 20.0  # a command that takes so long is not run again
DIGEST = "0" * 64  # no training state is written: it would be the same for any number of trials


@dataclass
class Cost:
    """Processor and wall seconds of something that is done many times.

    Attributes:
        each: the processor seconds of every time.
    """

    wall_s: float = 0.0
    each: list[float] = field(default_factory=list)

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Adds what the body takes."""
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self.each.append(time.process_time() - processor)
        self.wall_s += time.perf_counter() - wall

    @property
    def s(self) -> float:
        """Processor seconds in all."""
        return sum(self.each)

    def add(self, name: str, to: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, each call of which is measured; `name` is for a debugger."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.measured():
                return to(*args, **kwargs)

        call.__name__ = name
        return call


@dataclass
class Worker:
    """A simulated worker's trial: its curve, and how long an epoch of it takes."""

    journal: Journal
    attempt: Any
    curve: list[float]
    epoch_s: float
    epoch: int = 0


def study_of(name: str, trials: int, sampler: str, scheduler: str) -> StudyConfig:
    """The recorded study with so many trials."""
    landscape = Landscape(STUDY)
    raw = landscape.config.model_dump(mode="json")
    raw["name"] = name
    raw["study"] |= {"trials": trials, "sampler": sampler}
    raw["study"]["scheduler"] = {
        "name": scheduler,
        "grace_epochs": landscape.epochs // 3,
        "reduction_factor": 2,
    }
    return StudyConfig.model_validate(raw)


def play(storage: Path, config: StudyConfig) -> dict[str, Any]:
    """Runs a study to its end; what the driver spent on it."""
    import ray.tune  # noqa: F401 - a driver has it in its memory

    landscape = Landscape(STUDY)
    folder = StudyFolder.create(storage, config)
    trial_cost, epoch_cost, draws = Cost(), Cost(), Cost()
    before = _memory()
    with folder.session() as session:
        search = Search(folder, config, session, Silent())
        search.sampler.ask = draws.add("ask", search.sampler.ask)  # type: ignore[method-assign]  # to time it
        epochs = _play(search, folder, landscape, trial_cost, epoch_cost)
    trials = len(draws.each) + 1
    handed_out = _without(trial_cost.each, draws.each)
    tenth = max(1, len(handed_out) // 10)
    return {
        "trials": trials,
        "epochs": epochs,
        "driver_ms_per_trial": 1000 * (trial_cost.s + epoch_cost.s - draws.s) / trials,
        "driver_wall_ms_per_trial": 1000
        * (trial_cost.wall_s + epoch_cost.wall_s - draws.wall_s)
        / trials,
        "hand_out_ms_first_tenth": 1000 * sum(handed_out[:tenth]) / tenth,
        "hand_out_ms_last_tenth": 1000 * sum(handed_out[-tenth:]) / tenth,
        "driver_ms_per_epoch": 1000 * epoch_cost.s / epochs,
        "epoch_ms_last_tenth": 1000 * sum(epoch_cost.each[-(epochs // 10) :]) / (epochs // 10),
        "sampler_ms_per_trial": 1000 * draws.s / max(1, len(draws.each)),
        "sampler_ms_last_tenth": 1000 * sum(draws.each[-tenth:]) / tenth,
        "memory_mb": _memory(),
        "memory_before_mb": before,
        **_disk(folder.root),
    }


def _play(
    search: Search, folder: StudyFolder, landscape: Landscape, trial_cost: Cost, epoch_cost: Cost
) -> int:
    """What Ray and the workers do to a search; returns the epochs of all trials."""
    random = np.random.default_rng(0)
    running: dict[str, Worker] = {}
    queue: list[tuple[float, str]] = []
    spent = 0

    def begin(now: float) -> None:
        with trial_cost.measured():
            key = search.next_trial()
        if key is None:
            trial_cost.each.pop()
            return
        record = folder.trial(key).record()
        assert record is not None
        values = {"sam.rho": record.config.sam.rho, **_at_least(landscape, record.values)}
        noise = np.random.default_rng([0, trial_number(key)])
        journal = Journal(folder.trial(key).journal)
        attempt = journal.begin(search.session)
        curve = landscape.curve(values, noise)
        running[key] = Worker(journal, attempt, curve, float(random.uniform(1, 2)))
        heapq.heappush(queue, (now + running[key].epoch_s, key))

    for _ in range(WORKERS):
        begin(0.0)
    while queue:
        now, key = heapq.heappop(queue)
        worker = running[key]
        value = float(worker.curve[worker.epoch])
        worker.epoch += 1
        spent += 1
        metrics = {"train_loss": 2.3 - value, "val_loss": 2.3 - value, "val_accuracy": value}
        worker.journal.append(_entry(worker, metrics))
        with epoch_cost.measured():
            goes_on = search.on_epoch(key, worker.epoch, metrics, 0.1, replayed=False)
        if goes_on and worker.epoch < landscape.epochs:
            heapq.heappush(queue, (now + worker.epoch_s, key))
            continue
        if goes_on:
            outcome = Outcome("finished", worker.epoch)
            folder.trial(key).end(outcome, search.session, worker.attempt)
            with epoch_cost.measured():
                search.end(key, outcome, write=False)
            epoch_cost.each[-2] += epoch_cost.each.pop()
        del running[key]
        begin(now)
    return spent


def _at_least(landscape: Landscape, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values within the recorded ones: the baseline's rho is below them, and it has no other."""
    found = {}
    for path, axis in landscape.axes.items():
        value = values.get(path, axis[0])
        found[path] = max(value, axis[0]) if isinstance(axis[0], float) else value
    return found


def _entry(worker: Worker, metrics: dict[str, float]) -> Entry:
    attempt, epoch = worker.attempt, worker.epoch
    return Entry(
        session=attempt.session,
        attempt=attempt.number,
        worker=attempt.worker,
        epoch=epoch,
        metrics=metrics,
        duration_s=0.1,
        time_ms=now_ms(),
        precision="fp32",
        state=f"state-{epoch:05d}-{attempt}.pt",
        sha256=DIGEST,
        weights=f"best-{epoch:05d}-{attempt}.safetensors",
        weights_sha256=DIGEST,
    )


def _without(whole: list[float], parts: list[float]) -> list[float]:
    """Each of the first less its part: the baseline, which comes first, is not drawn."""
    drawn = whole[len(whole) - len(parts) :]
    return [one - part for one, part in zip(drawn, parts, strict=True)]


def resume(storage: Path, name: str) -> dict[str, Any]:
    """Reads an ended study and hands out the first trial of twenty more."""
    import ray.tune  # noqa: F401 - a driver has it in its memory

    before, command, built, first, draws = _memory(), Cost(), Cost(), Cost(), Cost()
    with command.measured():  # what `samtune resume` does before Ray starts
        folder = StudyFolder.open(storage, name)
        config = extended(folder.checked_config((), Path.cwd()), 20)
        assert Study(folder, config).left == 20
    with folder.session() as session:
        with built.measured():
            search = Search(folder, config, session, Silent())
        search.sampler.ask = draws.add("ask", search.sampler.ask)  # type: ignore[method-assign]  # to time it
        with first.measured():
            assert search.next_trial() is not None
    return {
        "resume_s": built.s + first.s - draws.s,
        "resume_wall_s": built.wall_s + first.wall_s - draws.wall_s,
        "resume_draw_s": draws.s,
        "resume_command_s": command.s,
        "resume_memory_mb": _memory(),
        "resume_memory_before_mb": before,
    }


def ship(storage: Path, name: str) -> dict[str, Any]:
    """Ships a study into a new database, looks again, and ships one more epoch."""
    from samtune.tracking.process import POLL_S, REST
    from samtune.tracking.shipper import Shipper

    # So that the shipper's clock sees the study as it is while it runs.
    folder = StudyFolder(storage / name)
    uri = f"sqlite:///{storage / name}.db"
    first, idle, one = Cost(), Cost(), Cost()
    with folder.session() as session:
        shipper = Shipper(folder, uri)
        shipper.client.search_experiments()  # makes the tables
        with first.measured():
            result = shipper.ship()
        assert not result.failure, result.failure
        shipper.ship()
        for _ in range(5):
            with idle.measured():
                assert not shipper.ship().sent
        search = Search(folder, extended(folder.config(), 1000), session, Silent())
        key = search.next_trial()
        assert key is not None
        journal = Journal(folder.trial(key).journal)
        worker = Worker(journal, journal.begin(session), [], 0.0)
        shipper.ship()
        for _ in range(5):
            worker.epoch += 1
            journal.append(_entry(worker, {"val_accuracy": 0.5}))
            with one.measured():
                assert shipper.ship().sent == 1
    passes = sorted(idle.each)[2], sorted(one.each)[2]
    shares = [cost / (cost + max(POLL_S, REST * cost)) for cost in passes]
    return {
        "first_pass_s": first.s,
        "idle_pass_ms": 1000 * passes[0],
        "idle_share_of_a_core": shares[0],
        "one_epoch_pass_ms": 1000 * passes[1],
        "one_epoch_share_of_a_core": shares[1],
        "shipper_memory_mb": _memory(),
    }


def empty_studies(storage: Path) -> dict[str, Any]:
    """Many studies without a trial."""
    config = study_of("empty", 100, "random", "asha")
    for i in range(EMPTY_STUDIES):
        StudyFolder.create(storage, config.model_copy(update={"name": f"empty-{i}"}))
    return {"studies": EMPTY_STUDIES}


def command(name: str, *words: str) -> dict[str, Any]:
    """A `samtune` command in a process of its own, the interpreter's start included."""
    best = Cost()
    # The second finds files in memory, byte code on the disk and what the first has left.
    while not best.each or (len(best.each) < 2 and best.s < ENOUGH_S):
        before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "samtune", *words], check=True, stdout=subprocess.DEVNULL
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best.wall_s = time.perf_counter() - wall
        best.each.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {
        f"{name}_s": best.each[-1],
        f"{name}_wall_s": best.wall_s,
        f"{name}_first_s": best.each[0],
    }


def _memory() -> float:
    """Megabytes of this process's own: torch's and Ray's libraries, which all map, are none."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def _disk(root: Path) -> dict[str, Any]:
    """How many files a study has, and their bytes, without weights and training states."""
    paths = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    return {"files": len(paths), "megabytes": sum(p.stat().st_size for p in paths) / 1e6}


def alone(part: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """What `part` measures in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(part, *args).result()


def measure(storage: Path, trials: int, sampler: str, scheduler: str) -> dict[str, Any]:
    """All figures of one study."""
    name = f"{sampler}-{scheduler}-{trials}"
    config = study_of(name, trials, sampler, scheduler)
    found = alone(play, storage, config)
    found |= command("show", "show", name, "--storage", str(storage))
    found |= command("list", "list", "--storage", str(storage))
    found |= alone(ship, storage, name)
    shutil.rmtree(storage / name / "trials" / f"t{trials + 1:04d}")  # the shipper's own
    found |= alone(resume, storage, name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="what a large study costs beside its training")
    parser.add_argument("--trials", nargs="*", type=int, default=(100, 1000, 10_000))
    parser.add_argument("--samplers", nargs="*", default=("random", "tpe"))
    parser.add_argument("--schedulers", nargs="*", default=("asha",))
    parser.add_argument("--storage", type=Path, help="where the studies go; default is temporary")
    parser.add_argument("--json", type=Path, default=RESULTS / "scale-cpu.json")
    arguments = parser.parse_args()
    studies: dict[str, dict[str, Any]] = {}
    cases = itertools.product(arguments.samplers, arguments.schedulers, arguments.trials)
    for sampler, scheduler, trials in cases:
        if sampler == "tpe" and trials > MOST_TPE:
            continue
        with tempfile.TemporaryDirectory(dir=arguments.storage) as folder:
            found = measure(Path(folder), trials, sampler, scheduler)
        studies[f"{sampler}, {scheduler}, {trials}"] = found
        print(f"\n{sampler}, {scheduler}, {trials} trials")
        for figure, value in found.items():
            print(f"  {figure:28} {value:.4g}", flush=True)
    with tempfile.TemporaryDirectory(dir=arguments.storage) as folder:
        alone(empty_studies, Path(folder))
        empty = command("list", "list", "--storage", folder)
    print(f"\nlist of {EMPTY_STUDIES} empty studies: {empty['list_s']:.3g} s")
    save("scale", {"studies": studies, "list_of_empty_studies": empty}, arguments.json)


if __name__ == "__main__":
    main()
