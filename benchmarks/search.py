"""How many epochs does a search need to come close to the best?

    python benchmarks/search.py [--rounds 50]

Learning curves recorded once (`record_curves.py`) are replayed through samtune's own sampler and
trial scheduler, without Ray: four workers on virtual time ask, report epoch by epoch, stop and
tell. Between the grid's points, curves are interpolated linearly (numbers on the scale that they
are searched on); the noise of a trial is the difference between the seeds at its nearest point.

A search has come there when a trial ran to its end whose setting's mean last value over the seeds
is at least 0.99 of the best setting's; 0.98 on `resnet_digits`, where 0.4 % of the space has 0.99.
Counted are the epochs of all trials up to then; a search that was not there within 80 trials counts
as infinitely many. `stock` is what Ray's OptunaSearch does: Optuna's default sampler, told each
stopped trial as complete with the value of the epoch it was stopped in. Rungs are at a third and
two thirds of the epochs, half go on. Beside each median stands its ratio to random search's under
the same scheduler, with a 95 % interval of a bootstrap over the seeds. `grid` has no points in
ranges. What samplers are made of was tried on the seeds from 1000 on, and not on those reported.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
from measure import RESULTS, options, save
from scipy.interpolate import RegularGridInterpolator

from samtune.config.schema import SchedulerConfig, StudyConfig
from samtune.config.study_file import read_study
from samtune.study.trial_folder import EndState, trial_key
from samtune.tuning.sampler import Sampler
from samtune.tuning.scheduler import TrialScheduler, new_scheduler
from samtune.tuning.space import draw

HERE = Path(__file__).parent
WORKERS = 4
MOST_TRIALS = 80
WITHIN = {"wrn_rho": 0.99, "resnet_digits": 0.98}
STUDIES = tuple(WITHIN)
SAMPLERS = ("random", "stock", "qmc", "tpe", "cmaes", "gp")
SCHEDULERS = ("none", "asha", "hyperband", "median")
RESAMPLES = 2000


class Asks(Protocol):
    """What proposes trials."""

    def ask(self, key: str) -> dict[str, Any]: ...
    def report(self, key: str, epoch: int, value: float) -> None: ...
    def tell(self, key: str, state: EndState, value: float | None) -> None: ...


class Stock:
    """Ray's OptunaSearch, as far as it decides what is tried."""

    def __init__(self, config: StudyConfig) -> None:
        sampler = optuna.samplers.TPESampler(seed=config.study.seed)
        self.study = optuna.create_study(direction="maximize", sampler=sampler)
        self.config = config
        self._running: dict[str, optuna.Trial] = {}
        self._last: dict[str, float] = {}

    def ask(self, key: str) -> dict[str, Any]:
        self._running[key] = self.study.ask()
        return draw(self._running[key], self.config)

    def report(self, key: str, epoch: int, value: float) -> None:  # noqa: ARG002 - a sampler's signature
        self._last[key] = value

    def tell(self, key: str, state: EndState, value: float | None) -> None:  # noqa: ARG002 - a sampler's signature
        self.study.tell(self._running.pop(key), self._last[key])


class Landscape:
    """Recorded curves of a study, anywhere between the points of their grid."""

    def __init__(self, name: str) -> None:
        recorded = json.loads((HERE / "curves" / f"{name}.json").read_text())
        self.axes: dict[str, list[Any]] = recorded["axes"]
        sizes = [len(axis) for axis in self.axes.values()]
        curves = np.array(recorded["curves"])  # point, seed, epoch
        self.epochs = curves.shape[-1]
        curves = curves.reshape(*sizes, *curves.shape[1:])
        mean = curves.mean(axis=-2)
        # Of two seeds each is half the difference from their mean, which halves its variance.
        self._noise = (curves - mean[..., None, :]) * math.sqrt(
            curves.shape[-2] / (curves.shape[-2] - 1)
        )
        self._ticks = [
            np.array([self._coordinate(path, value) for value in axis])
            for path, axis in self.axes.items()
        ]
        self._mean = RegularGridInterpolator(self._ticks, mean)
        self.good_enough = WITHIN[name] * float(mean[..., -1].max())
        self.config = self._study(name)

    def _study(self, name: str) -> StudyConfig:
        study = read_study(HERE.parent / "search_spaces" / f"{name}.yaml").model_dump(mode="json")
        study["search_space"] = {
            path: [
                {"float": [axis[0], axis[-1]], "log": True}
                if isinstance(axis[0], float)
                else {"choice": axis}
            ]
            for path, axis in self.axes.items()
        }
        study["trial"]["training"]["epochs"] = self.epochs
        return StudyConfig.model_validate(study)

    def _coordinate(self, path: str, value: Any) -> float:
        return math.log(value) if isinstance(value, float) else self.axes[path].index(value)

    def end(self, values: Mapping[str, Any]) -> float:
        """The mean last value at a setting."""
        return float(self._mean(self._point(values))[0][-1])

    def curve(self, values: Mapping[str, Any], random: np.random.Generator) -> list[float]:
        point = self._point(values)
        nearest = tuple(
            int(np.abs(ticks - at).argmin()) for ticks, at in zip(self._ticks, point, strict=True)
        )
        noise = random.choice(self._noise[nearest])
        return list(np.clip(self._mean(point)[0] + noise, 0, 1))

    def _point(self, values: Mapping[str, Any]) -> list[float]:
        return [self._coordinate(path, values[path]) for path in self.axes]


@dataclass
class Running:
    curve: Sequence[float]
    end: float
    duration: float
    epoch: int = 0


def epochs_needed(
    landscape: Landscape, asks: Asks, scheduler: TrialScheduler, seed: int
) -> tuple[float, int]:
    """Epochs until the search is there, infinite if it never was; and trials begun."""
    random = np.random.default_rng(seed)
    numbers = itertools.count(1)
    running: dict[str, Running] = {}
    queue: list[tuple[float, str]] = []
    spent, begun = 0, 0

    def begin(now: float) -> None:
        nonlocal begun
        if begun == MOST_TRIALS:
            return
        begun += 1
        key = trial_key(next(numbers))
        values = asks.ask(key)
        noise = np.random.default_rng([seed, begun])
        trial = Running(landscape.curve(values, noise), landscape.end(values), random.uniform(1, 2))
        running[key] = trial
        heapq.heappush(queue, (now + trial.duration, key))

    for _ in range(WORKERS):
        begin(0.0)
    while queue:
        now, key = heapq.heappop(queue)
        trial = running[key]
        value = trial.curve[trial.epoch]
        trial.epoch += 1
        spent += 1
        asks.report(key, trial.epoch, value)
        is_last = trial.epoch == landscape.epochs
        if scheduler.goes_on(key, trial.epoch, value) and not is_last:
            heapq.heappush(queue, (now + trial.duration, key))
            continue
        asks.tell(key, "finished" if is_last else "stopped", value)
        if is_last and trial.end >= landscape.good_enough:
            return spent, begun
        begin(now)
    return math.inf, begun


def measure(study: str, rule: str, sampler: str, seeds: Sequence[int]) -> dict[str, Any]:
    """The epochs that a combination needs, over these seeds."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    landscape = Landscape(study)
    scheduler = SchedulerConfig.model_validate(
        {"name": rule, "grace_epochs": landscape.epochs // 3, "reduction_factor": 2}
    )
    found, trials = [], []
    started = time.process_time()
    for seed in seeds:
        settings = landscape.config.study.model_copy(
            update={"seed": seed, "sampler": "tpe" if sampler == "stock" else sampler}
        )
        config = landscape.config.model_copy(update={"study": settings})
        asks: Asks = Stock(config) if sampler == "stock" else Sampler(config)
        decides = new_scheduler(scheduler, landscape.epochs, "max")
        epochs, begun = epochs_needed(landscape, asks, decides, seed)
        found.append(epochs)
        trials.append(begun)
    return {
        "epochs": found,
        "quartiles": middle(found),
        "never": sum(map(math.isinf, found)),
        "trials": middle(trials),
        "seeds": len(seeds),
        "cpu_s": time.process_time() - started,
    }


def middle(values: Sequence[float]) -> tuple[float, float, float]:
    """Quartiles that are measured values, as some may be infinite."""
    ordered = sorted(values)
    return ordered[len(ordered) // 4], ordered[len(ordered) // 2], ordered[3 * len(ordered) // 4]


def compared(found: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """The ratio of two medians over the same seeds, and its 95 % interval."""
    both = np.array([found, others[: len(found)]])
    places = np.random.default_rng(0).integers(len(found), size=(RESAMPLES, len(found)))
    # Medians that are measured values, as some may be infinite.
    medians = np.sort(both[:, places], axis=-1)[..., len(found) // 2]
    with np.errstate(invalid="ignore"):
        low, high = np.nanquantile(medians[0] / medians[1], [0.025, 0.975], method="nearest")
    return middle(found)[1] / middle(others[: len(found)])[1], float(low), float(high)


def main() -> None:
    parser = options("epochs that a search needs", rounds=50)
    parser.add_argument("--studies", nargs="*", choices=STUDIES, default=STUDIES)
    parser.add_argument("--samplers", nargs="*", choices=SAMPLERS, default=SAMPLERS)
    parser.add_argument("--schedulers", nargs="*", choices=SCHEDULERS, default=SCHEDULERS)
    parser.add_argument("--first-seed", type=int, default=0)
    arguments = parser.parse_args()
    print("| study | scheduler | sampler | epochs [quartiles] | trials | of random | never |")
    print("|---|---|---|---|---|---|---|")
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.rounds)
    studies: dict[str, dict[str, dict[str, Any]]] = {}
    cases = list(itertools.product(arguments.studies, arguments.schedulers, arguments.samplers))
    with ProcessPoolExecutor() as pool:
        measured = pool.map(measure, *zip(*cases, strict=True), itertools.repeat(seeds))
        for (name, rule, sampler), figures in zip(cases, measured, strict=True):
            results = studies.setdefault(name, {}).setdefault(rule, {})
            results[sampler] = figures
            ratio = ""
            if "random" in results:
                others = results["random"]["epochs"]
                figures["of_random"] = compared(figures["epochs"], others)
                ratio = "{:.2f} [{:.2f}, {:.2f}]".format(*figures["of_random"])
            low, median, high = figures["quartiles"]
            print(
                f"| {name} | {rule} | {sampler} | {median} [{low}, {high}] "
                f"| {figures['trials'][1]} | {ratio} | {figures['never']} |",
                flush=True,
            )
    plain = json.loads(json.dumps(studies), parse_constant=lambda _: None)  # what is infinite
    save("search", {"studies": plain}, arguments.json or RESULTS / "search.json")


if __name__ == "__main__":
    main()
