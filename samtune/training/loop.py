"""The training loop: a generator that yields an `EpochResult` for each finished epoch.

It knows no Ray, no MLflow and no callback: whoever wants more asks for the next epoch, whoever has
seen enough stops asking. All that changes while training is in `TrainingState`, so that is all a
checkpoint holds; shuffling, augmentation and dropout are drawn from (seed, epoch or step).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from samtune.config.schema import TrialConfig
from samtune.data import DataSplits
from samtune.data.batches import Batches
from samtune.sam import frozen_batchnorm_stats, norm_parameters
from samtune.tasks import Task
from samtune.training.precision import Precision, autocast, in_float32
from samtune.training.state import TrainingState, trial_task


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave.

    Attributes:
        epoch: from 1.
        metrics: `train_loss` (of what was trained on: smoothed, noisy and mixed as it was), `lr`,
            `skipped_steps` and the task's, such as `val_accuracy`.
        duration_s: training and evaluation together.
    """

    epoch: int
    metrics: dict[str, float]
    duration_s: float

    @property
    def not_finite(self) -> list[str]:
        """The metrics that are NaN or infinite; any of them means that training diverged."""
        return [name for name, value in self.metrics.items() if not math.isfinite(value)]


def train(
    state: TrainingState, config: TrialConfig, data: DataSplits, device: torch.device
) -> Iterator[EpochResult]:
    """Trains from where `state` is to the last epoch, yielding after each.

    On a CPU the results are the same bit for bit however often the state is saved and restored in
    between, as long as the number of threads is the same.
    """
    training = config.training
    task = trial_task(config, data)
    train_batches = data.train_batches(
        training.batch_size, device, mixup=training.mixup, cutmix=training.cutmix
    )
    val_batches = data.val_batches(training.batch_size, device)

    while state.epoch < training.epochs:
        started = time.perf_counter()
        seeds = np.random.SeedSequence([training.seed, state.epoch + 1]).generate_state(2)
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
            **evaluate(state.model, task, val_batches, state.precision),
            "lr": lr,
            "skipped_steps": float(state.optimizer.skipped_steps - skipped),
        }
        yield EpochResult(state.epoch, metrics, time.perf_counter() - started)


def sam_step(state: TrainingState, task: Task, inputs: Tensor, targets: Tensor) -> Tensor:
    """One SAM update on one batch; returns the loss at the weights before it.

    With MSAM that is the loss where its only pass is, and with a climb on a share of the batch the
    loss of that share. However it ends, no gradients stay behind.
    """
    model, optimizer, sam = state.model, state.optimizer, state.config.sam
    try:
        _seed_dropout(state)
        if not state.climbs_now:
            loss = backward(state, task, inputs, targets)
        elif sam.variant == "msam":
            with optimizer.at_momentum_neighbor():
                loss = backward(state, task, inputs, targets)
        else:
            # Batch norm's statistics come from one pass: at w, unless only a share is seen there.
            on_share = sam.ascent_fraction < 1
            with _statistics(model, frozen=on_share):
                loss = ascent(state, task, inputs, targets)  # g(w): which way is uphill
            with optimizer.at_worst_neighbor(), _statistics(model, frozen=not on_share):
                if sam.same_dropout:
                    _seed_dropout(state)
                backward(state, task, inputs, targets)  # the gradient up there
        descend(state)  # the base optimizer at w, with that gradient
    finally:
        optimizer.zero_grad()
        state.steps += 1
    return loss


def ascent(state: TrainingState, task: Task, inputs: Tensor, targets: Tensor) -> Tensor:
    """The gradient to climb along, and the loss; only a direction is needed, so it may be cheap."""
    sam = state.config.sam
    if sam.ascent_fraction < 1:
        # Two images at least: batch norm cannot normalise one.
        share = max(2, round(sam.ascent_fraction * len(inputs)))
        inputs, targets = inputs[:share], targets[:share]
    precision = "bf16" if sam.ascent_precision == "bf16" else state.precision
    only = norm_parameters(state.model) if sam.variant == "sam_on" else None
    loss = backward(state, task, inputs, targets, precision, only)
    if state.precision == "fp16":
        state.loss_scale.unscale(state.model.parameters())
    return loss


def backward(
    state: TrainingState,
    task: Task,
    inputs: Tensor,
    targets: Tensor,
    precision: Precision | None = None,
    only: Sequence[Tensor] | None = None,
) -> Tensor:
    """Adds the gradients of the batch's mean loss, and returns that loss.

    Under fp16 they are the scaled loss's. Micro-batches are weighed by their size; batch norm
    normalises each by itself.

    Args:
        precision: where it is not the state's own.
        only: the weights to compute gradients for; default is all.
    """
    precision = precision or state.precision
    training = state.config.training
    if not training.channels_last:
        inputs = inputs.contiguous()
    scale = state.loss_scale.scale if state.precision == "fp16" else 1.0
    size = training.micro_batch_size or len(inputs)
    losses = []
    for x, y in zip(torch.split(inputs, size), torch.split(targets, size), strict=True):
        with autocast(precision, x.device):
            outputs = state.model(x)
        share = len(x) / len(inputs)
        loss = task.loss(in_float32(outputs), x, y)
        torch.autograd.backward(loss if scale * share == 1 else loss * (scale * share), inputs=only)
        losses.append(loss.detach() * share)
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def descend(state: TrainingState) -> None:
    """The base optimizer's step with the gradients that are there, clipped where that is wanted.

    Under fp16 gradients that overflowed skip the step and lower the scale of the loss.
    """
    optimizer, limit = state.optimizer, state.config.training.clip_grad_norm
    if state.precision != "fp16":
        if limit is not None:
            nn.utils.clip_grad_norm_(state.model.parameters(), limit)
        optimizer.descend()
        return
    state.loss_scale.unscale(state.model.parameters())
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), limit or math.inf)
    skipped_before = optimizer.skipped_steps
    if norm.isfinite():
        optimizer.descend()
    else:
        optimizer.skip_step()
    state.loss_scale.update(overflow=optimizer.skipped_steps > skipped_before)


def _seed_dropout(state: TrainingState) -> None:
    seeds = np.random.SeedSequence([state.config.training.seed, state.epoch, state.steps])
    torch.manual_seed(int(seeds.generate_state(1)[0]))


def _statistics(model: nn.Module, *, frozen: bool) -> AbstractContextManager[None]:
    return frozen_batchnorm_stats(model) if frozen else nullcontext()


@torch.no_grad()
def evaluate(
    model: nn.Module, task: Task, batches: Batches, precision: Precision = "fp32"
) -> dict[str, float]:
    """The task's metrics over a validation split, as `val_loss`, `val_accuracy` and so on.

    Sums stay on the device until the end, so that a GPU is asked once. The same weights, precision
    and batches give the same numbers again.
    """
    was_training = model.training
    model.eval()
    meter = task.meter()
    for inputs, targets in batches.in_order():
        with autocast(precision, inputs.device):
            outputs = model(inputs)
        meter.update(in_float32(outputs), inputs, targets)
    model.train(was_training)
    return {f"val_{name}": value for name, value in meter.compute().items()}
