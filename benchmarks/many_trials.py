"""Does TPE find worse settings where it learns from some of many trials?

    python benchmarks/many_trials.py [--rounds 6] [--trials 800] [--most 250]

Trials are drawn one after another by samtune's own sampler and end at once, with the value of a
recorded study (`search.Landscape`) or of a smooth peak in six dimensions, noise included. What
counts is without the noise: the mean of the last 100 settings drawn, and the best of all. Beside
the sampler that learns from all trials stand those that learn from so many: the best 25, which are
all that TPE takes for good ones, and an even share of the others. Draws are timed by the
processor's clock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from measure import RESULTS, options, save
from search import Landscape

from samtune.config.schema import StudyConfig
from samtune.study.trial_folder import trial_key
from samtune.tuning import sampler as module
from samtune.tuning.sampler import Sampler

LAST = 100
PEAK = {
    "sam.rho": {"float": [0.01, 1.0], "log": True},
    "optimizer.lr": {"float": [0.001, 1.0], "log": True},
    "optimizer.momentum": {"float": [0.0, 0.99]},
    "optimizer.weight_decay": {"float": [1e-5, 1e-2], "log": True},
    "training.label_smoothing": {"float": [0.0, 0.3]},
    "model.width_factor": {"int": [1, 8]},
}
NOISE = 0.02  # standard deviation; the peak is 1 high

Value = Callable[[Mapping[str, Any]], float]


def recorded() -> tuple[StudyConfig, Value]:
    """The bundled study, from its recorded curves."""
    landscape = Landscape("wrn_rho")
    return landscape.config, landscape.end


def peak() -> tuple[StudyConfig, Value]:
    """A Gaussian hill off the middle of six settings."""
    config = Landscape("wrn_rho").config.model_dump(mode="json")
    config["search_space"] = {path: [distribution] for path, distribution in PEAK.items()}
    config = StudyConfig.model_validate(config)

    def value(values: Mapping[str, Any]) -> float:
        found = 0.0
        for i, (path, distribution) in enumerate(PEAK.items()):
            low, high = next(iter(distribution.values()))
            scale = math.log if distribution.get("log") else float
            at = (scale(values[path]) - scale(low)) / (scale(high) - scale(low))
            found += (at - 0.3 - 0.08 * i) ** 2
        return math.exp(-4 * found)

    return config, value


STUDIES = {"wrn_rho": recorded, "peak": peak}


def search(study: str, trials: int, most: int | None, seed: int) -> dict[str, float]:
    """One search, and the milliseconds of its last draws."""
    module.MOST_LEARNED = most or trials
    config, value = STUDIES[study]()
    settings = config.study.model_copy(update={"seed": seed, "sampler": "tpe"})
    config = config.model_copy(update={"study": settings})
    sampler, random = Sampler(config), np.random.default_rng(seed)
    found, taken = [], []
    for number in range(1, trials + 1):
        key, began = trial_key(number), time.process_time()
        values = sampler.ask(key)
        taken.append(time.process_time() - began)
        found.append(value(values))
        told = found[-1] + float(random.normal(0, NOISE))
        sampler.report(key, config.trial.training.epochs, told)
        sampler.tell(key, "finished", told)
    return {
        "last": float(np.mean(found[-LAST:])),
        "best": max(found),
        "draw_ms": 1000 * float(np.mean(taken[-LAST:])),
    }


def main() -> None:
    parser = options("what TPE loses by learning from some of many trials", rounds=6)
    parser.add_argument("--trials", type=int, default=800)
    parser.add_argument("--most", nargs="*", type=int, default=(250,))
    parser.set_defaults(json=RESULTS / "many_trials.json")
    arguments = parser.parse_args()
    caps = [None, *arguments.most]
    cases = [(study, most) for study in STUDIES for most in caps]
    runs: dict[tuple[str, int | None], list[dict[str, float]]] = {case: [] for case in cases}
    with ProcessPoolExecutor() as pool:
        for seed in range(arguments.rounds):
            futures = {c: pool.submit(search, c[0], arguments.trials, c[1], seed) for c in cases}
            for case, future in futures.items():
                runs[case].append(future.result())
    saved = {}
    for study, most in cases:
        found, whole = runs[study, most], runs[study, None]
        print(f"{study}, learns from {most or 'all'} of {arguments.trials}")
        row = {}
        for name in ("last", "best", "draw_ms"):
            values = np.array([run[name] for run in found])
            lost = values - np.array([run[name] for run in whole])
            error = float(lost.std(ddof=1)) / math.sqrt(len(lost)) if len(lost) > 1 else math.nan
            row[name] = {
                "mean": float(values.mean()),
                "difference": float(lost.mean()),
                "error": error,
            }
            print(f"  {name:8} {values.mean():.4f}  {lost.mean():+.4f} +- {error:.4f}")
        saved[f"{study}, {most or 'all'}"] = row
    about = {"rounds": arguments.rounds, "trials": arguments.trials, "searches": saved}
    save("many_trials", about, arguments.json)


if __name__ == "__main__":
    main()
