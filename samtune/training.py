"""The training loop: a generator that yields an `EpochResult` for each finished epoch.

It knows no Ray, no MLflow and no callback: whoever wants more asks for the next epoch, whoever has
seen enough stops asking. All that changes while training is in `TrainingState`, so that is all a
checkpoint holds; shuffling, augmentation and dropout are drawn from (seed, epoch).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from samtune.config import TrainingConfig, TrialConfig, optimizer_class
from samtune.data import DataSplits
from samtune.data.batches import Batches
from samtune.models import build_model
from samtune.registry import MODELS
from samtune.sam import SAM, frozen_batchnorm_stats
from samtune.tasks import Task, build_task

STEP_AT = (0.3, 0.6, 0.8)
STEP_FACTOR = 0.2


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave.

    Attributes:
        epoch: from 1.
        metrics: `train_loss`, `lr`, `skipped_steps` and the task's, such as `val_accuracy`.
        duration_s: training and evaluation together.
    """

    epoch: int
    metrics: dict[str, float]
    duration_s: float

    @property
    def not_finite(self) -> list[str]:
        """The metrics that are NaN or infinite; any of them means that training diverged."""
        return [name for name, value in self.metrics.items() if not math.isfinite(value)]


@dataclass
class TrainingState:
    """All that changes while training."""

    model: nn.Module
    optimizer: SAM
    lr_schedule: LRScheduler
    epoch: int = 0

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers only: it loads with `weights_only=True`."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_schedule": self.lr_schedule.state_dict(),
            "epoch": self.epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_schedule.load_state_dict(state["lr_schedule"])
        self.epoch = state["epoch"]


def set_up(config: TrialConfig, data: DataSplits, device: torch.device) -> TrainingState:
    """A model with fresh weights drawn from the trial's seed, and its optimizer.

    Raises:
        ValueError: the model cannot be built from these values.
    """
    torch.manual_seed(config.training.seed)
    model = new_model(config, data).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = SAM(
        model.parameters(),
        optimizer_class(config.optimizer.name),
        rho=config.sam.rho,
        adaptive=config.sam.adaptive,
        **config.optimizer.params,
    )
    schedule = LambdaLR(optimizer, lambda epoch: lr_factor(config.training, epoch))
    return TrainingState(model, optimizer, schedule)


def new_model(config: TrialConfig, data: DataSplits) -> nn.Module:
    """The trial's model, made for the data set's channels, classes and size."""
    model = build_model(
        config.model.name,
        in_channels=data.in_channels,
        num_classes=data.num_classes,
        image_size=data.image_size,
        **config.model.params,
    )
    if any(is_lazy(p) for p in model.parameters()):  # LazyLinear and its like want to see an image
        with torch.no_grad():
            model.eval()(torch.zeros(1, data.in_channels, *data.image_size))
        model.train()
    return model


def trial_task(config: TrialConfig, data: DataSplits) -> Task:
    """What the trial's model is trained for, on this data.

    Raises:
        ValueError: the task cannot do with these settings.
    """
    return build_task(
        MODELS[config.model.name].task or data.task,
        num_classes=data.num_classes,
        label_smoothing=config.training.label_smoothing,
        mean=data.mean,
        std=data.std,
        model_params=config.model.params,
    )


def lr_factor(training: TrainingConfig, epoch: int) -> float:
    """What the learning rate is multiplied by in the epoch after `epoch` finished ones.

    `cosine` falls to 0 at the end (Loshchilov and Hutter 2017); `step` falls to a fifth at 30, 60
    and 80 % of the epochs, as wide ResNets are trained (Zagoruyko and Komodakis 2016).
    """
    progress = epoch / training.epochs
    match training.lr_schedule:
        case "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        case "step":
            return float(STEP_FACTOR ** sum(progress >= at for at in STEP_AT))
        case "constant":
            return 1.0


def train(
    state: TrainingState, config: TrialConfig, data: DataSplits, device: torch.device
) -> Iterator[EpochResult]:
    """Trains from where `state` is to the last epoch, yielding after each.

    On a CPU the results are the same bit for bit however often the state is saved and restored in
    between, as long as the number of threads is the same.
    """
    training = config.training
    task = trial_task(config, data)
    train_batches = data.train_batches(training.batch_size, device)
    val_batches = data.val_batches(training.batch_size, device)

    while state.epoch < training.epochs:
        started = time.perf_counter()
        seeds = np.random.SeedSequence([training.seed, state.epoch + 1]).generate_state(2)
        torch.manual_seed(int(seeds[0]))  # dropout
        lr = float(state.optimizer.param_groups[0]["lr"])
        skipped = state.optimizer.skipped_steps
        state.model.train()
        losses = [
            sam_step(state, task, inputs, targets)
            for inputs, targets in train_batches.shuffled(int(seeds[1]))
        ]
        state.lr_schedule.step()
        state.epoch += 1
        metrics = {
            "train_loss": torch.stack(losses).mean().item(),
            **evaluate(state.model, task, val_batches),
            "lr": lr,
            "skipped_steps": float(state.optimizer.skipped_steps - skipped),
        }
        yield EpochResult(state.epoch, metrics, time.perf_counter() - started)


def sam_step(state: TrainingState, task: Task, inputs: Tensor, targets: Tensor) -> Tensor:
    """One SAM update on one batch; returns the loss at the weights before it.

    However it ends, no gradients stay behind.
    """
    model, optimizer = state.model, state.optimizer
    try:
        loss = task.loss(model(inputs), inputs, targets)
        loss.backward()  # type: ignore[no-untyped-call]  # g(w): which way is uphill
        if not optimizer.is_plain:
            with optimizer.at_worst_neighbor(), frozen_batchnorm_stats(model):
                task.loss(model(inputs), inputs, targets).backward()  # type: ignore[no-untyped-call]
        optimizer.descend()  # the base optimizer at w, with the gradient found up there
    finally:
        optimizer.zero_grad()
    return loss.detach()


@torch.no_grad()
def evaluate(model: nn.Module, task: Task, batches: Batches) -> dict[str, float]:
    """The task's metrics over a validation split, as `val_loss`, `val_accuracy` and so on.

    Sums stay on the device until the end, so that a GPU is asked once.
    """
    was_training = model.training
    model.eval()
    meter = task.meter()
    for inputs, targets in batches.in_order():
        meter.update(model(inputs), inputs, targets)
    model.train(was_training)
    return {f"val_{name}": value for name, value in meter.compute().items()}
