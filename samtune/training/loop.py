"""The training loop: a generator that yields an `EpochResult` for each finished epoch.

It knows no Ray, no MLflow and no callback: whoever wants more asks for the next epoch, whoever has
seen enough stops asking. All that changes while training is in `TrainingState`, so that is all a
checkpoint holds; shuffling, augmentation and dropout are drawn from (seed, epoch or step).
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from samtune.config.trial import TrialConfig
from samtune.data import DataSplits
from samtune.data.batches import Batches
from samtune.sam import frozen_batchnorm_stats, norm_parameters
from samtune.tasks import Task
from samtune.training.averaging import STATISTICS_BATCHES, estimate_statistics
from samtune.training.batch_norm import in_turn, together
from samtune.training.precision import Precision, autocast, in_float32
from samtune.training.ranks import ALONE, Ranks
from samtune.training.schedule import steps_per_epoch
from samtune.training.state import TrainingState, trial_task


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave.

    Attributes:
        epoch: from 1.
        metrics: `train_loss` (of what was trained on: smoothed, noisy and mixed as it was), `lr`
            (the last step's), `skipped_steps`, `gradient_evaluations` (of one image's loss each,
            climbs included) and the task's, such as `val_accuracy`.
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
        steps = steps_per_epoch(training, len(train_batches))
        trained = train_epoch(state, task, train_batches.shuffled(int(seeds[1])), steps)
        if state.evaluated is not state.model:
            few = itertools.islice(train_batches.shuffled(int(seeds[1])), STATISTICS_BATCHES)
            estimate_statistics(state.evaluated, few, state.precision, int(seeds[0]))
        metrics = {
            "train_loss": trained.pop("train_loss"),
            **evaluate(state.evaluated, task, val_batches, state.precision),
            **trained,
        }
        yield EpochResult(state.epoch, metrics, time.perf_counter() - started)


def train_epoch(
    state: TrainingState,
    task: Task,
    batches: Iterator[tuple[Tensor, Tensor]] | None = None,
    steps: int = 0,
) -> dict[str, float]:
    """Trains an epoch; returns what training tells of it, the same on every rank.

    Args:
        batches: so many as `steps`; a rank that has none gets the first one's.
    """
    skipped, evaluated = state.optimizer.skipped_steps, state.gradient_evaluations
    state.model.train()
    losses = []
    for inputs, targets in state.ranks.batches(batches, steps):
        lr = float(state.optimizer.param_groups[0]["lr"])
        losses.append(sam_step(state, task, inputs, targets))
        state.finish_step()
    state.finish_epoch()
    state.ranks.check_alike(state.model)
    loss = torch.stack(losses).mean()
    evaluations = loss.new_tensor(state.gradient_evaluations - evaluated, dtype=torch.float64)
    loss, evaluations = state.ranks.summed(torch.stack([loss.double(), evaluations]))
    return {
        "train_loss": loss.item(),
        "lr": lr,
        "skipped_steps": float(state.optimizer.skipped_steps - skipped),
        "gradient_evaluations": evaluations.item(),
    }


def sam_step(state: TrainingState, task: Task, inputs: Tensor, targets: Tensor) -> Tensor:
    """One SAM update on one batch; returns the loss at the weights before it.

    With MSAM that is the loss where its only pass is, and with a climb on a share of the batch the
    loss of that share; where several ranks compute the batch, this one's part of the sum. However
    it ends, no gradients stay behind.

    Args:
        inputs, targets: the whole batch, on every rank.
    """
    optimizer, sam, ranks = state.optimizer, state.config.sam, state.ranks
    try:
        if not state.climbs_now:
            _seed_dropout(state)
            loss = backward(state, task, inputs, targets, ranks)
        elif sam.variant == "msam":
            _seed_dropout(state)
            with optimizer.at_momentum_neighbor():
                loss = backward(state, task, inputs, targets, ranks)
        elif sam.micro_ascent:
            loss = mean_neighbor_gradient(state, task, inputs, targets, sam.micro_ascent)
        else:
            loss = neighbor_gradient(state, task, inputs, targets, ranks)
        descend(state)  # the base optimizer at w, with that gradient
    finally:
        optimizer.zero_grad()
        state.steps += 1
    return loss


def neighbor_gradient(
    state: TrainingState,
    task: Task,
    inputs: Tensor,
    targets: Tensor,
    ranks: Ranks,
    part: int = 0,
) -> Tensor:
    """Leaves the gradient at these images' worst neighbor; returns the loss at the weights.

    Batch norm's statistics come from the pass at the weights, even where that sees a share only:
    those of the neighbor are another function's.

    Args:
        ranks: who compute it.
        part: which micro-batch this is, for dropout of its own.
    """
    _seed_dropout(state, part)
    loss = ascent(state, task, inputs, targets, ranks)  # g(w): which way is uphill
    with state.optimizer.at_worst_neighbor(), frozen_batchnorm_stats(state.model):
        if state.config.sam.same_dropout:
            _seed_dropout(state, part)
        backward(state, task, inputs, targets, ranks)  # the gradient up there
    return loss


def mean_neighbor_gradient(
    state: TrainingState, task: Task, inputs: Tensor, targets: Tensor, size: int
) -> Tensor:
    """Leaves the mean of the gradients at the neighbors of parts of `size` images.

    This is m-sharpness (Foret et al. 2021, section 4.1; Andriushchenko and Flammarion 2022,
    arXiv:2206.06232). Parts are weighed by their size; batch norm normalises each by itself. A rank
    climbs with its own parts alone, and only the gradients at their neighbors are added up.
    """
    ranks, means = state.ranks, dict[nn.Parameter, Tensor]()
    losses = []
    parts = list(zip(torch.split(inputs, size), torch.split(targets, size), strict=True))
    with in_turn(state.model, ranks):
        for i, (x, y) in ranks.own(parts):
            share = len(x) / len(inputs)
            losses.append(neighbor_gradient(state, task, x, y, ALONE, i) * share)
            for p in state.model.parameters():
                if p.grad is None:
                    continue
                if p in means:
                    means[p].add_(p.grad, alpha=share)
                else:
                    means[p] = p.grad.mul_(share)
            state.optimizer.zero_grad()
    for p, mean in means.items():
        p.grad = mean
    ranks.add_up_gradients(list(state.model.parameters()))
    return torch.stack(losses or [inputs.new_zeros(())]).sum()


def ascent(
    state: TrainingState, task: Task, inputs: Tensor, targets: Tensor, ranks: Ranks
) -> Tensor:
    """The gradient to climb along, and the loss; only a direction is needed, so it may be cheap."""
    sam = state.config.sam
    if sam.ascent_fraction < 1:
        share = climbing_images(sam.ascent_fraction, len(inputs))
        inputs, targets = inputs[:share], targets[:share]
    precision = "bf16" if sam.ascent_precision == "bf16" else state.precision
    only = norm_parameters(state.model) if sam.variant == "sam_on" else None
    loss = backward(state, task, inputs, targets, ranks, precision, only)
    if state.precision == "fp16":
        state.loss_scale.unscale(state.model.parameters())
    return loss


def climbing_images(fraction: float, images: int) -> int:
    """How many images of so many a climb on a share of them sees."""
    # Two at least: batch norm cannot normalise one.
    return max(2, round(fraction * images)) if fraction < 1 else images


def backward(
    state: TrainingState,
    task: Task,
    inputs: Tensor,
    targets: Tensor,
    ranks: Ranks,
    precision: Precision | None = None,
    only: Sequence[nn.Parameter] | None = None,
) -> Tensor:
    """Adds the gradients of the batch's mean loss; returns that loss, or this rank's part of it.

    Under fp16 they are the scaled loss's. Micro-batches are weighed by their size; batch norm
    normalises each by itself, and dropout draws for each anew, so that it does not matter which
    rank computes which of them.

    Args:
        ranks: who compute it; without micro-batches each has its share of the images.
        precision: where it is not the state's own.
        only: the weights to compute gradients for; default is all.
    """
    precision = precision or state.precision
    training = state.config.training
    if not training.channels_last:
        inputs = inputs.contiguous()
    scale = state.loss_scale.scale if state.precision == "fp16" else 1.0
    parts = _parts(inputs, targets, training.micro_batch_size, ranks)
    seeds = torch.randint(2**62, (len(parts) + 1,)).tolist() if len(parts) > 1 else []
    losses = []
    with _one_batch_norm(state, len(inputs), ranks):
        for i, (x, y) in ranks.own(parts):
            if seeds:
                torch.manual_seed(seeds[i])
            state.gradient_evaluations += len(x)
            share = len(x) / len(inputs)
            loss = batch_loss(state.model, task, x, y, precision)
            weighed = loss if scale * share == 1 else loss * (scale * share)
            torch.autograd.backward(weighed, inputs=only)
            losses.append(loss.detach() * share)
    if seeds:
        torch.manual_seed(seeds[-1])
    ranks.add_up_gradients(only or list(state.model.parameters()))
    return losses[0] if len(losses) == 1 else torch.stack(losses or [inputs.new_zeros(())]).sum()


def _parts(
    inputs: Tensor, targets: Tensor, size: int | None, ranks: Ranks
) -> list[tuple[Tensor, Tensor]]:
    """Micro-batches of this size, or a part for each rank; none is empty."""
    if size:
        return list(zip(torch.split(inputs, size), torch.split(targets, size), strict=True))
    count = min(ranks.size, len(inputs))
    return list(zip(inputs.tensor_split(count), targets.tensor_split(count), strict=True))


def _one_batch_norm(
    state: TrainingState, images: int, ranks: Ranks
) -> contextlib.AbstractContextManager[None]:
    if state.config.training.micro_batch_size:
        return in_turn(state.model, ranks)
    return together(state.model, ranks, images)


def batch_loss(
    model: nn.Module, task: Task, inputs: Tensor, targets: Tensor, precision: Precision = "fp32"
) -> Tensor:
    """The mean loss of a batch in float32, of a forward pass in this precision."""
    with autocast(precision, inputs.device):
        outputs = task.forward(model, inputs, targets)
    return task.loss(in_float32(outputs), inputs, targets)


def descend(state: TrainingState) -> None:
    """The base optimizer's step with the gradients that are there, clipped where that is wanted.

    Under fp16 gradients that overflowed skip the step and lower the scale of the loss.
    """
    optimizer, limit = state.optimizer, state.config.training.clip_grad_norm
    params, fp16 = list(state.model.parameters()), state.precision == "fp16"
    if fp16:
        state.loss_scale.unscale(params)
        skipped_before = optimizer.skipped_steps
    # The norm decides whether to clip and whether to step, so it is computed once.
    norm = None if limit is None else nn.utils.clip_grad_norm_(params, limit)
    optimizer.descend(norm)
    if fp16:
        state.loss_scale.update(overflow=optimizer.skipped_steps > skipped_before)


def _seed_dropout(state: TrainingState, part: int = 0) -> None:
    entropy = [state.config.training.seed, state.epoch, state.steps]
    seeds = np.random.SeedSequence([*entropy, part] if part else entropy)
    torch.manual_seed(int(seeds.generate_state(1)[0]))


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
