"""The Ray worker: a trial that takes one epoch a step.

A class rather than a function: a function trainable runs in a thread of its own, which Ray must
wait for before it can reuse the worker, and which outlives a stop. `next` on a generator has none.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from samtune.registry import load_plugins
from samtune.study.folder import StudyFolder


@dataclass(frozen=True)
class SharedData:
    """Where a data set lies in Ray's object store.

    Attributes:
        splits: the reference; bare, Ray would fetch it before the worker has loaded its plugins.
    """

    splits: Any


class TrialActor(tune.Trainable):
    """One worker process; it runs one trial after another."""

    def setup(self, config: dict[str, Any], shared: SharedData | None = None) -> None:
        """Begins, or takes up, the trial that `config` names.

        Args:
            shared: the data set of all trials; without it each trial brings its own.
        """
        import ray
        import torch

        torch.set_num_threads(config["cpus"])
        load_plugins(config["plugins"], Path(config["plugin_folder"]))
        self._data = ray.get(shared.splits) if shared else None
        self._start(config)

    def step(self) -> dict[str, Any]:
        """One epoch; the last result says how the trial ended."""
        from samtune.study.trial_run import output_to

        with output_to(self._log):
            progress = next(self._progress)
        outcome = progress.outcome
        return {
            "epoch": progress.epoch,
            "metrics": progress.metrics,
            "duration_s": progress.duration_s,
            "replayed": progress.replayed,
            "outcome": outcome and {"state": outcome.state, "reason": outcome.reason},
            "done": outcome is not None,
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Another trial for the same process: importing torch again would cost seconds."""
        self.cleanup()
        self._start(new_config)
        return True

    def cleanup(self) -> None:
        """Ends what the trial holds open, and gives its GPU memory to the neighbours."""
        import torch

        self._progress.close()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _start(self, config: dict[str, Any]) -> None:
        import torch

        from samtune.study.trial_run import run_trial

        folder = StudyFolder(Path(config["study"]), config["study_id"]).trial(config["key"])
        self._log = folder.log
        sys.argv[0] = f"samtune {folder.key}"
        device = torch.device("cuda" if config["gpus"] else "cpu")
        self._progress = run_trial(folder, config["session"], device=device, data=self._data)
