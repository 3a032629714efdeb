"""A trial's model with the weights it counts by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from samtune.checkpoint import load_state, load_weights
from samtune.config import TrialConfig
from samtune.data import DataSplits, load_dataset
from samtune.errors import SamtuneError
from samtune.study.study import Trial
from samtune.training import evaluate, new_model, trial_task


@dataclass(frozen=True)
class TrainedModel:
    """A trial's model as it was after one epoch.

    Attributes:
        recipe: what `samtune.models.build_model` needs to build it anew.
        metrics: that epoch's, as the journal has them.
    """

    trial: str
    epoch: int
    model: nn.Module
    recipe: dict[str, Any]
    metrics: dict[str, float]
    config: TrialConfig
    data: DataSplits

    def evaluate(self) -> dict[str, float]:
        """The metrics on the validation split, computed anew as in training."""
        task = trial_task(self.config, self.data)
        batches = self.data.val_batches(self.config.training.batch_size, torch.device("cpu"))
        model = self.model.to(memory_format=torch.channels_last)
        return evaluate(model, task, batches)


def load_trained(trial: Trial) -> TrainedModel:
    """The weights the trial counts by: its best epoch's, or its last, as `study.select` says.

    Raises:
        SamtuneError: the trial has no weights on disk.
    """
    if trial.select == "best":
        try:
            weights, about = load_weights(trial.folder.best_weights)
        except (OSError, ValueError) as error:
            raise SamtuneError(f"trial {trial.key} has no best weights on disk: {error}") from error
        epoch, metrics = about["epoch"], about["metrics"]
    else:
        weights, epoch, metrics = _last_weights(trial)
    config = TrialConfig.model_validate(trial.config)
    data = load_dataset(config.dataset.name, **config.dataset.params)
    model = new_model(config, data)
    model.load_state_dict(weights)
    recipe = {
        "name": config.model.name,
        "in_channels": data.in_channels,
        "num_classes": data.num_classes,
        "image_size": list(data.image_size),
        **config.model.params,
    }
    return TrainedModel(trial.key, epoch, model.eval(), recipe, metrics, config, data)


def _last_weights(trial: Trial) -> tuple[dict[str, Any], int, dict[str, float]]:
    last = trial.last_epoch
    state = load_state(trial.folder.root / last.state, last.sha256) if last else None
    if last is None or state is None:
        raise SamtuneError(f"trial {trial.key} has no whole training state on disk")
    return state["model"], last.epoch, last.metrics
