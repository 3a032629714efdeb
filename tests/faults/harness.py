"""Runs `samtune` as people do, in a process of its own, on studies small enough to be killed often.

Faults come in from outside, through signals, files and limits, or through a registered model that
misbehaves: the product itself knows of none of them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from samtune.registry import load_plugins
from samtune.tuning.cluster import usable_cpus
from tests.commands import start_samtune
from tests.faults.oracle import MARK, PRINTED, check_nothing_left, shared_memory

PLUGIN = '''
"""A small model that takes its time."""
import time
from torch import nn
from samtune import register_model

@register_model("slow")
class Slow(nn.Module):
    def __init__(self, *, num_classes: int, seconds: float = 0.0):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
        self.seconds = seconds

    def forward(self, images):
        if self.training and images.device.type != "meta":
            time.sleep(self.seconds)
        return self.net(images)
'''

# One trial at a time, on a machine of any size: then what happens has one order.
STUDY = f"""
name: killed
plugins: [slow_plugin]
trial:
  model: {{name: slow, seconds: 0.05}}
  dataset: {{name: digits, label_noise: 0.4}}
  optimizer: {{name: sgd, lr: 0.1, momentum: 0.9}}
  training: {{epochs: 5, batch_size: 600, precision: fp32}}
search_space:
  sam.rho: {{float: [0.01, 1.0], log: true}}
  optimizer.lr: {{float: [0.001, 0.5], log: true}}
study:
  trials: 7
  scheduler: {{name: asha, grace_epochs: 1, reduction_factor: 2}}
  resources: {{cpus: {usable_cpus()}}}
"""


class Workplace:
    """A folder with a study file, and the processes that were started in it."""

    def __init__(self, folder: Path, study: str = STUDY) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self._memory_before = shared_memory()
        self.printed = ""
        self.storage = folder / "samtune_studies"
        self.mlflow = f"sqlite:///{folder / 'mlflow.db'}"
        (folder / "slow_plugin.py").write_text(PLUGIN)
        (folder / "killed.yaml").write_text(study)
        load_plugins(["slow_plugin"], folder)  # for who looks at the weights afterwards

    def start(
        self, *arguments: str, stderr: int | IO[str] = subprocess.STDOUT
    ) -> subprocess.Popen[str]:
        """`samtune` with these arguments; its output, each epoch in it, is kept."""
        if arguments[0] in ("run", "resume"):
            arguments = (*arguments, "--verbose")
        environment = {**os.environ, MARK: self.mark, "MLFLOW_TRACKING_URI": self.mlflow}
        # A Ray of its own, not the one that this process may have started for other tests.
        for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
            environment.pop(name, None)
        return start_samtune(*arguments, cwd=self.folder, env=environment, stderr=stderr)

    def finish(self, process: subprocess.Popen[str], timeout_s: float = 240) -> int:
        """Waits for the end, and returns the exit code."""
        rest, _ = process.communicate(timeout=timeout_s)
        self.printed += rest
        assert "Traceback" not in rest, rest
        return process.returncode

    def run(self, *arguments: str) -> int:
        """Starts and finishes."""
        return self.finish(self.start(*arguments))

    def check_nothing_left(self, *, killed: bool) -> None:
        """O8, for all that was started here."""
        check_nothing_left(self.mark, self.storage, self._memory_before, killed=killed)

    def kill_after(
        self, process: subprocess.Popen[str], epochs: int, number: signal.Signals, delay_s: float
    ) -> bool:
        """Sends a signal some time after so many printed epochs; False if it ended before."""
        assert process.stdout is not None
        for line in process.stdout:
            self.printed += line
            epochs -= bool(PRINTED.match(line))
            if epochs <= 0:
                break
        else:
            return False
        try:
            process.wait(delay_s)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            return True
        return False


def kill_until_done(place: Workplace, seed: int, most_kills: int) -> int:
    """Runs the study and kills its driver at random moments; returns how often it was killed."""
    random = np.random.default_rng(seed)
    arguments: Sequence[str] = ("run", "killed.yaml")
    kills = 0
    while kills < most_kills:
        process = place.start(*arguments)
        epochs, delay = int(random.integers(1, 12)), float(random.uniform(0, 0.4))
        was_killed = place.kill_after(process, epochs, signal.SIGKILL, delay)
        place.finish(process)
        if not was_killed:
            break
        kills += 1
        arguments = ("resume", "killed", "--plugin", "slow_plugin")
    return kills
