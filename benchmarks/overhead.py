"""What a trial costs beyond its own training: Ray, Optuna, journals, checkpoints and MLflow.

    python benchmarks/overhead.py [--trials 100]

Runs a study of trials that sleep 4 x 50 ms in two slots and compares its wall time with the sleep
alone. Counted is everything from the first trial's hand-out, so the workers' start and their import
of torch too; starting Ray itself is paid once a study and printed apart.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from samtune.tuning.run import Silent

EPOCHS = 4
EPOCH_S = 0.05
SLOTS = 2
STUDY = """
name: overhead
plugins: [sleeper]
trial:
  model: {{name: sleeper}}
  dataset: {{name: sixteen}}
  optimizer: {{name: sgd, lr: 0.1}}
  sam: {{rho: 0.0}}
  training: {{epochs: {epochs}, batch_size: 16}}
search_space:
  optimizer.lr: {{float: [0.001, 1.0], log: true}}
  model.scale: {{float: [0.1, 10.0], log: true}}
study: {{trials: {trials}, scheduler: none, baseline: false}}
"""


class Clock(Silent):
    """A listener that notes when things happen."""

    def __init__(self) -> None:
        self.first_start = 0.0
        self.first_epoch = 0.0
        self.ends: list[float] = []

    def on_start(self, *_: object) -> None:
        self.first_start = self.first_start or time.perf_counter()

    def on_epoch(self, *_: object) -> None:
        self.first_epoch = self.first_epoch or time.perf_counter()

    def on_end(self, *_: object) -> None:
        self.ends.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=100)
    trials = parser.parse_args().trials

    from samtune.config.study_file import check_study
    from samtune.config.yaml_reader import parse_yaml
    from samtune.tracking import wait_until_shipped
    from samtune.tuning import run_study

    here = Path(__file__).absolute().parent
    study_file = STUDY.format(trials=trials, epochs=EPOCHS)
    config = check_study(parse_yaml(study_file, "the benchmark's study file"), here)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        study = run_study(config, storage=folder, listener=clock, plugin_folder=here)
        returned = time.perf_counter()
        left = wait_until_shipped(Path(folder) / "overhead")
        shipped = time.perf_counter()
    if study.counts() != {"finished": trials} or left.missing:
        raise SystemExit(f"not a fair run: {study.counts()}, MLflow lacks {left.missing}")

    per_trial_s = EPOCHS * EPOCH_S / SLOTS
    warm = [end for end in clock.ends if end > clock.ends[SLOTS - 1]]
    figures = {
        "trials": trials,
        "overhead_ms_per_trial": (clock.ends[-1] - clock.first_start) / trials - per_trial_s,
        "overhead_ms_per_trial_once_warm": (warm[-1] - clock.ends[SLOTS - 1]) / len(warm)
        - per_trial_s,
        "ray_start_ms": clock.first_start - started,
        "worker_start_ms": clock.first_epoch - clock.first_start - EPOCH_S,
        "mlflow_after_the_end_ms": shipped - returned,
    }
    print(json.dumps({k: v if k == "trials" else round(1000 * v, 1) for k, v in figures.items()}))


if __name__ == "__main__":
    main()
