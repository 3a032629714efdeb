"""What changes while training, and how a trial sets it up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from samtune.config.optimizers import optimizer_class
from samtune.config.trial import TrialConfig
from samtune.data import DataSplits
from samtune.models import build_model
from samtune.registry import MODELS
from samtune.sam import NORM_LAYERS, SAM, norm_parameters
from samtune.tasks import Task, build_task
from samtune.training.averaging import WeightAverage
from samtune.training.precision import LossScale, Precision, resolve
from samtune.training.ranks import ALONE, Ranks
from samtune.training.schedule import lr_factor, steps_per_epoch

CPU = torch.device("cpu")
FUSED = ("sgd", "adam", "adamw")  # whose fused step torch has for CPUs and for GPUs


@dataclass
class TrainingState:
    """All that changes while training, and the configuration that it follows.

    Attributes:
        precision: what the model computes in on this device.
        steps: optimizer steps so far, over all epochs.
        gradient_evaluations: of one image's loss each, since this object was made.
        loss_scale: for fp16 only.
        average: of the weights; None where none is wanted.
        device: where it is computed.
        ranks: the processes that compute it, as this one of them sees them.
    """

    model: nn.Module
    optimizer: SAM
    lr_schedule: LRScheduler
    config: TrialConfig
    precision: Precision = "fp32"
    epoch: int = 0
    steps: int = 0
    gradient_evaluations: int = 0
    loss_scale: LossScale = field(default_factory=LossScale)
    average: WeightAverage | None = None
    device: torch.device = CPU
    ranks: Ranks = ALONE

    @property
    def evaluated(self) -> nn.Module:
        """The model that metrics and saved weights are of: the average as soon as there is one."""
        return self.average.model if self.average and self.average.count else self.model

    @property
    def climbs_now(self) -> bool:
        """Whether the next step is SAM's, or the base optimizer's alone."""
        sam = self.config.sam
        has_started = self.epoch >= sam.start_fraction * self.config.training.epochs
        return has_started and self.steps % sam.every == 0 and not self.optimizer.is_plain

    def finish_step(self) -> None:
        """What belongs to each optimizer step: the learning rate, a moving average."""
        self.lr_schedule.step()
        if self.average and self.config.training.ema_decay is not None:
            self.average.update(self.model)

    def finish_epoch(self) -> None:
        """What belongs to each epoch: its number, a mean over epochs."""
        self.epoch += 1
        training = self.config.training
        start = training.average_from
        if self.average and start is not None and self.epoch > start * training.epochs:
            self.average.update(self.model)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers only: it loads with `weights_only=True`."""
        average = {"average": self.average.state_dict()} if self.average else {}
        return {
            **average,
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
        if self.average:
            self.average.load_state_dict(state["average"])
        self.epoch = state["epoch"]
        self.steps = state["steps"]


def evaluated_weights(saved: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of what `TrainingState.state_dict` gave, the weights of `TrainingState.evaluated`."""
    average = saved.get("average")
    weights: dict[str, Tensor] = (average if average and average["count"] else saved)["model"]
    return weights


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
    average = WeightAverage(model, training.ema_decay) if training.averages else None
    if training.compile:
        model.compile()
    optimizer = new_optimizer(config, model)
    steps = steps_per_epoch(training, len(data.train))
    schedule = LambdaLR(optimizer, lambda step: lr_factor(training, step, steps))
    precision = resolve(training.precision, device)
    return TrainingState(
        model, optimizer, schedule, config, precision, average=average, device=device
    )


def new_optimizer(config: TrialConfig, model: nn.Module) -> SAM:
    """SAM in the trial's variant around the trial's optimizer, fused where torch can.

    `asam_eta` measures as the authors' code does: a parameter with `weight` anywhere in its name
    relative to |w| + eta, all others as they are. A weight that is computed of others, such as
    `parametrizations.weight.original0`, has it in the middle.

    Raises:
        ValueError: `asam_eta`, and no parameter is named so.
    """
    sam = config.sam
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
    if sam.variant == "asam_eta":
        weights = {p for name, p in model.named_parameters() if "weight" in name}
        if not weights:
            raise ValueError(
                "asam_eta is relative for parameters named 'weight', and this model has none: "
                "use variant asam, which is relative for all"
            )
        rest = [p for p in model.parameters() if p not in weights]
        groups = [{"params": [p for p in model.parameters() if p in weights], "adaptive": True}]
        groups += [{"params": rest, "adaptive": False}] if rest else []
    if not config.training.decay_norms_and_biases:
        groups = _without_decay(groups, norms_and_biases(model))
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


def norms_and_biases(model: nn.Module) -> set[nn.Parameter]:
    """The weights of norm layers, found by type, and all weights of one dimension or none."""
    norms = (module for module in model.modules() if isinstance(module, NORM_LAYERS))
    of_norms = {p for module in norms for p in module.parameters(recurse=False)}
    return of_norms | {p for p in model.parameters() if p.ndim <= 1}


def _without_decay(
    groups: Sequence[dict[str, Any]], exempt: set[nn.Parameter]
) -> list[dict[str, Any]]:
    """Each group in two, of which the second, with its parameters in `exempt`, does not decay."""
    split = []
    for group in groups:
        decayed = [p for p in group["params"] if p not in exempt]
        rest = [p for p in group["params"] if p in exempt]
        split += [{**group, "params": decayed}] if decayed else []
        split += [{**group, "params": rest, "weight_decay": 0.0}] if rest else []
    return split


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
