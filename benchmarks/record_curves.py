"""Records the learning curves that `search.py` replays: two bundled studies over a grid.

    python benchmarks/record_curves.py [wrn_rho | resnet_digits]

Some eight minutes of one core in all, in fp32; trained as a trial is, without Ray. A file holds the
grid's axes and the validation accuracy after each epoch, by point of the grid (the last axis runs
fastest) and seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import torch
from measure import machine

from samtune.config.checked_trial import trial_with
from samtune.config.study_file import read_study
from samtune.config.trial import TrialConfig
from samtune.data import load_dataset
from samtune.training.loop import train
from samtune.training.state import set_up

HERE = Path(__file__).parent
CURVES = HERE / "curves"
SEARCH_SPACES = HERE.parent / "search_spaces"
GRIDS: dict[str, dict[str, list[Any]]] = {
    "wrn_rho": {
        "sam.rho": [0.01, 0.05, 0.15, 0.3, 0.5, 0.75, 1.0],
        "optimizer.lr": [0.02, 0.1, 0.4],
    },
    "resnet_digits": {
        "sam.rho": [0.05, 0.1, 0.2, 0.35, 0.6],
        "optimizer.lr": [0.02, 0.08, 0.3],
        "model.blocks": [[1, 1], [2, 2]],
    },
}
EPOCHS = {"wrn_rho": 12, "resnet_digits": 15}  # a little fewer than the studies', to save time
SEEDS = 2


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("studies", nargs="*", choices=[*GRIDS, []], default=[])
    for name in parser.parse_args().studies or GRIDS:
        record(name, GRIDS[name])


def record(name: str, axes: dict[str, list[Any]]) -> None:
    torch.set_num_threads(1)
    study = read_study(SEARCH_SPACES / f"{name}.yaml")
    data = load_dataset(study.trial.dataset.name, **study.trial.dataset.params)
    points = list(itertools.product(*axes.values()))
    curves: list[list[list[float]]] = [[] for _ in points]
    for seed, (i, point) in itertools.product(range(SEEDS), enumerate(points)):
        fixed = {
            "training.seed": seed,
            "training.precision": "fp32",
            "training.epochs": EPOCHS[name],
        }
        config = trial_with(study, dict(zip(axes, point, strict=True)) | fixed)
        curves[i].append(curve(config, data))
        print(name, point, seed, curves[i][-1][-1], flush=True)
    save(name, axes, curves)


def save(name: str, axes: dict[str, list[Any]], curves: list[list[list[float]]]) -> None:
    recorded = {
        "study": name,
        "metric": "val_accuracy",
        "axes": axes,
        "curves": curves,
        "machine": machine(),
    }
    CURVES.mkdir(exist_ok=True)
    (CURVES / f"{name}.json").write_text(json.dumps(recorded) + "\n")


def curve(config: TrialConfig, data: Any) -> list[float]:
    """Validation accuracy after each epoch; where training diverged, what is left is missing."""
    device = torch.device("cpu")
    found = []
    for result in train(set_up(config, data, device), config, data, device):
        if result.not_finite:
            break
        found.append(round(result.metrics["val_accuracy"], 4))
    return found


if __name__ == "__main__":
    main()
