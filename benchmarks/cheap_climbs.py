"""Which of the cheaper ways to climb keep SAM's gain, and where?

SGD, SAM and its cheaper forms on bundled data in three settings. rho is tuned for each on seeds of
its own; the accuracies are those of the last epoch over further, paired seeds.

    PYTHONPATH=. python benchmarks/cheap_climbs.py
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import torch
from measure import now, options, save
from scipy.stats import t

from samtune.config.trial import TrialConfig
from samtune.data import load_dataset
from samtune.training.loop import train
from samtune.training.state import set_up

WRN_10 = {"name": "wide_resnet", "depth": 10, "width_factor": 1}
WRN_16 = {"name": "wide_resnet", "depth": 16, "width_factor": 1}
RESNET = {"name": "resnet", "blocks": [1, 1], "channels": [16, 32]}
# A model, the share of wrong labels, and the rho around which each method's is looked for.
Setting = tuple[dict[str, Any], float, float]
SETTINGS: dict[str, Setting] = {
    "WRN-10-1, 40 % wrong labels": (WRN_10, 0.4, 0.5),
    "WRN-16-1, 20 % wrong labels": (WRN_16, 0.2, 0.5),
    "ResNet with 2 blocks, right labels": (RESNET, 0.0, 0.1),
}
SELDOM = (0.6, 1.0, 1.6, 2.4, 3.6, 6.0, 10.0)
METHODS: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "SGD": ({}, (0.0,)),
    "SAM": ({}, (0.6, 1.0, 1.6, 2.4, 3.6)),
    "climb on 1/4": ({"ascent_fraction": 0.25}, (0.6, 1.0, 1.6, 2.4, 3.6)),
    "each 5th step": ({"every": 5}, SELDOM),
    "last 1/8 of the epochs": ({"start_fraction": 0.875}, SELDOM),
    "MSAM": ({"variant": "msam"}, (0.6, 2.0, 6.0, 12.0, 24.0)),
}
CPU = torch.device("cpu")


def main() -> None:
    parser = options("cheaper climbs", rounds=5)
    parser.add_argument("--tuning-seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rhos-from", type=Path, help="earlier figures, whose rho is taken")
    parser.add_argument(
        "--methods",
        nargs="*",
        choices=METHODS,
        default=list(METHODS),
        help="these alone, beside SGD and SAM, which they are compared with",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    figures = {}
    for name, setting in SETTINGS.items():
        figures[name] = compare(name, setting, arguments)
    save("cheap_climbs", {"settings": figures}, arguments.json)


def compare(name: str, setting: Setting, arguments: Any) -> dict[str, Any]:
    tuning = range(1000, 1000 + arguments.tuning_seeds)
    methods = [m for m in METHODS if m in ("SGD", "SAM", *arguments.methods)]
    if arguments.rhos_from:
        known = json.loads(arguments.rhos_from.read_text())["settings"][name]
        rhos = {method: known[method]["rho"] for method in methods}
    else:
        rhos = {method: tuned(method, setting, tuning, arguments.epochs) for method in methods}
    runs: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
    for seed in range(arguments.rounds):
        for method, rho in rhos.items():
            runs[method].append(run(method, rho, setting, seed, arguments.epochs))

    print(f"\n{name}: validation accuracy, {arguments.rounds} seeds")
    print("| method | rho | accuracy | minus SAM's, paired, 95 % | time, ratio to SGD |")
    print("|---|---|---|---|---|")
    figures = {}
    for method, results in runs.items():
        accuracies = [accuracy for accuracy, _ in results]
        differences = [a - b for a, (b, _) in zip(accuracies, runs["SAM"], strict=True)]
        ratio = statistics.median(
            taken / base for (_, taken), (_, base) in zip(results, runs["SGD"], strict=True)
        )
        count = len(differences)
        margin = t.ppf(0.975, count - 1) * statistics.stdev(differences) / count**0.5
        print(
            f"| {method} | {rhos[method]:g} | {statistics.mean(accuracies):.4f} "
            f"+- {statistics.stdev(accuracies):.4f} | {statistics.mean(differences):+.4f} "
            f"+- {margin:.4f} | {ratio:.2f} |",
            flush=True,
        )
        figures[method] = {
            "rho": rhos[method],
            "accuracies": accuracies,
            "difference_to_sam": statistics.mean(differences),
            "margin_95": margin,
            "time_ratio_to_sgd": ratio,
        }
    return figures


def tuned(method: str, setting: Setting, seeds: range, epochs: int) -> float:
    _, factors = METHODS[method]
    candidates = [factor * setting[2] for factor in factors]
    if len(candidates) == 1:
        return candidates[0]

    def mean_accuracy(rho: float) -> float:
        return statistics.mean(run(method, rho, setting, seed, epochs)[0] for seed in seeds)

    best = max(candidates, key=mean_accuracy)
    if best in (candidates[0], candidates[-1]):
        print(f"{method}: the best rho, {best:g}, is at the edge of those tried", flush=True)
    return best


def run(method: str, rho: float, setting: Setting, seed: int, epochs: int) -> tuple[float, float]:
    """The last epoch's validation accuracy, and the seconds of the whole run."""
    model, label_noise, _ = setting
    data = load_dataset("digits", label_noise=label_noise)
    config = TrialConfig.model_validate(
        {
            "model": model,
            "dataset": {"name": "digits"},
            "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
            "sam": {"rho": rho, **METHODS[method][0]},
            "training": {"epochs": epochs, "batch_size": 120, "seed": seed, "precision": "fp32"},
        }
    )
    state = set_up(config, data, CPU)
    started = now()
    *_, last = train(state, config, data, CPU)
    return last.metrics["val_accuracy"], now() - started


if __name__ == "__main__":
    main()
