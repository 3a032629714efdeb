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
from dataclasses import dataclass, field
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
from samtune.precision import LossScale, Precision, autocast, in_float32, resolve
from samtune.registry import MODELS
from samtune.sam import SAM, frozen_batchnorm_stats, norm_parameters
from samtune.tasks import Task, build_task

STEP_AT = (0.3, 0.6, 0.8)
STEP_FACTOR = 0.2
FUSED = ("sgd", "adam", "adamw")  # whose fused step torch has for CPUs and for GPUs


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
    """All that changes while training, and the configuration that it follows.

    Attributes:
        precision: what the model computes in on this device.
        steps: optimizer steps so far, over all epochs.
        loss_scale: for fp16 only.
    """

    model: nn.Module
    optimizer: SAM
    lr_schedule: LRScheduler
    config: TrialConfig
    precision: Precision = "fp32"
    epoch: int = 0
    steps: int = 0
    loss_scale: LossScale = field(default_factory=LossScale)

    @property
    def climbs_now(self) -> bool:
        """Whether the next step is SAM's, or the base optimizer's alone."""
        sam = self.config.sam
        has_started = self.epoch >= sam.start_fraction * self.config.training.epochs
        return has_started and self.steps % sam.every == 0 and not self.optimizer.is_plain

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers only: it loads with `weights_only=True`."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_schedule": self.lr_schedule.state_dict(),
            "loss_scale": self.loss_scale.state_dict(),
            "epoch": self.epoch,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_schedule.load_state_dict(state["lr_schedule"])
        self.loss_scale.load_state_dict(state["loss_scale"])
        self.epoch = state["epoch"]
        self.steps = state["steps"]


def set_up(config: TrialConfig, data: DataSplits, device: torch.device) -> TrainingState:
    """A model with fresh weights drawn from the trial's seed, and its optimizer.

    Raises:
        ValueError: the model cannot be built from these values.
    """
    training = config.training
    torch.manual_seed(training.seed)
    layout = torch.channels_last if training.channels_last else torch.contiguous_format
    model = new_model(config, data).to(device=device, memory_format=layout)  # type: ignore[call-overload]
    if config.sam.variant == "sam_on":
        norm_parameters(model)  # there must be some
    if training.compile:
        model.compile()
    optimizer = new_optimizer(config, model)
    schedule = LambdaLR(optimizer, lambda epoch: lr_factor(training, epoch))
    return TrainingState(model, optimizer, schedule, config, resolve(training.precision, device))


def new_optimizer(config: TrialConfig, model: nn.Module) -> SAM:
    """SAM in the trial's variant around the trial's optimizer, fused where torch can."""
    sam = config.sam
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if sam.variant == "asam_eta":
        # As in the authors' code: weights relative to |w| + eta, biases as they are.
        weights = {p for name, p in model.named_parameters() if "weight" in name.split(".")[-1]}
        rest = [p for p in model.parameters() if p not in weights]
        groups = [{"params": [p for p in model.parameters() if p in weights], "adaptive": True}]
        groups += [{"params": rest, "adaptive": False}] if rest else []
    params = config.optimizer.params
    if config.optimizer.name.lower() in FUSED and not params.keys() & {"fused", "foreach"}:
        params["fused"] = not params.get("differentiable")
    return SAM(
        groups,
        optimizer_class(config.optimizer.name),
        rho=sam.rho,
        adaptive=sam.variant == "asam",
        eta=sam.eta if sam.variant == "asam_eta" else 0.0,
        sigma=sam.sigma if sam.variant == "fsam" else 0.0,
        mean_decay=sam.mean_decay,
        **params,
    )


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
