"""A trial's model with the weights it counts by."""

from __future__ import annotations

import contextlib
import json
import shlex
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from samtune.config.trial import TrialConfig
from samtune.data import DataSplits, open_dataset
from samtune.errors import SamtuneError
from samtune.models import architecture_alone
from samtune.registry import MODELS
from samtune.study.journal import Entry
from samtune.study.study import Trial
from samtune.training.checkpoint import load_into, load_state, load_weights
from samtune.training.loop import evaluate
from samtune.training.precision import Precision, resolve
from samtune.training.state import evaluated_weights, new_model, trial_task


@dataclass(frozen=True)
class TrainedModel:
    """A trial's model as it was after one epoch.

    Attributes:
        recipe: what `samtune.models.build_model` needs to build it anew.
        metrics: that epoch's, as the journal has them.
        device: where it was trained, `cpu` or `cuda`.
        precision: what it computed in there; None where that was not written down.
        threads: how many torch used there on a CPU.
    """

    trial: str
    epoch: int
    model: nn.Module
    recipe: dict[str, Any]
    metrics: dict[str, float]
    config: TrialConfig
    data: DataSplits
    device: str
    precision: Precision | None
    threads: int

    @property
    def task(self) -> str:
        """What the model's outputs mean."""
        return MODELS[self.config.model.name].task or self.data.task

    def evaluate(self) -> dict[str, float]:
        """The metrics on the validation split, computed anew as in training."""
        training = self.config.training
        at_hand = self.device if self.device == "cpu" or torch.cuda.is_available() else "cpu"
        device = torch.device(at_hand)
        layout = torch.channels_last if training.channels_last else torch.contiguous_format
        model = self.model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
        task = trial_task(self.config, self.data)
        batches = self.data.val_batches(training.batch_size, device)
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)  # sums are split among threads
        try:
            precision = self.precision or resolve(training.precision, device)
            return evaluate(model, task, batches, precision)
        finally:
            torch.set_num_threads(before)


@dataclass(frozen=True)
class _About:
    """What is written down of weights beside them."""

    device: str
    precision: Precision | None = None


def load_trained(trial: Trial, threads: int = 1, data: DataSplits | None = None) -> TrainedModel:
    """The weights the trial counts by: its best epoch's, or its last, as `study.select` says.

    Args:
        threads: what a trial of the study trains with on a CPU.
        data: the trial's data set, where the caller has it at hand.

    Raises:
        SamtuneError: the trial has no weights on disk, or they are not what was written.
    """
    entry = trial.selected_epoch
    if entry is None:
        raise SamtuneError(f"trial {trial.key} has no finished epoch, hence no weights")
    weights, about = _weights(trial, entry)
    config = trial.config
    data = data or open_dataset(config.dataset.name, config.dataset.params)
    with architecture_alone():
        model = new_model(config, data)
    try:
        load_into(model, weights)
    except RuntimeError as error:
        raise SamtuneError(f"trial {trial.key} has weights on disk of another model") from error
    recipe = {
        "name": config.model.name,
        "in_channels": data.in_channels,
        "num_classes": data.num_classes,
        "image_size": list(data.image_size),
        **config.model.params,
    }
    return TrainedModel(
        trial.key,
        entry.epoch,
        model.eval(),
        recipe,
        entry.metrics,
        config,
        data,
        about.device,
        about.precision,
        threads,
    )


def _weights(trial: Trial, entry: Entry) -> tuple[dict[str, Any], _About]:
    """The weights after this epoch, and what is said of them.

    They are in a file of their own where they were the best so far, and in the training state as
    long as that is kept.
    """
    if entry.weights:
        path = trial.folder.file(entry.weights)
        with contextlib.suppress(OSError, ValueError):
            return load_weights(path, _About, entry.weights_sha256)
    state = load_state(trial.folder.file(entry.state), entry.sha256)
    if state is None and (why := trial.folder.let_go()):
        raise SamtuneError(
            f"the weights of trial {trial.key} were not kept: {why}. To have them, train it again: "
            f"`{_again(trial)}`"
        )
    if state is None:
        raise SamtuneError(
            f"{trial.folder.file(entry.weights or entry.state)}, the weights of trial {trial.key} "
            f"after epoch {entry.epoch}, are damaged or gone; restore the file from a backup, or "
            "take another trial"
        )
    return evaluated_weights(state), _About(state["device"], state.get("precision"))


def _again(trial: Trial) -> str:
    """The command that trains this trial alone."""
    root = trial.folder.root.parent.parent
    settings = [f"{path}={json.dumps(value)}" for path, value in trial.values.items()]
    words = [str(root / "study.yaml"), *settings, "--name", f"{root.name}-{trial.key}"]
    return f"samtune train {shlex.join(words)}"
