"""What one complete training run is made of: the sections of `trial:`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from samtune.config.base import Config, Value
from samtune.registry import DATASETS, MODELS, Count, Registry

BEST: dict[str, Callable[..., Any]] = {"max": max, "min": min}  # by a metric's mode
LARGEST_ALPHA = 100.0  # papers use 0.1 to 1; from here on every image is half another's
LARGEST_RHO = 1e6  # papers end at 15; a float32 overflows at 3e38


def counts_by(values: Sequence[float], select: str, mode: str) -> float:
    """What a trial with these values, an epoch each, counts by: its best, or its last."""
    return float(BEST[mode](values) if select == "best" else values[-1])


class Named(Config):
    """Something registered, by name, with its parameters beside the name."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    name: str = Field(strict=True)

    @property
    def params(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class SamConfig(Config):
    """Sharpness-Aware Minimization around the optimizer; rho = 0 is the optimizer alone.

    Attributes:
        rho: the distance to the neighbor; its scale depends on the variant.
        variant: `sam`; `asam`, relative to every weight's size; `asam_eta`, its authors' own
            convention: weights relative to |w| + eta, biases not; `sam_on`, norm layers alone;
            `msam`, against the momentum, in one pass; `fsam`, along what is new in the gradient.
        eta: of `asam_eta`.
        sigma, mean_decay: of `fsam`: how much of the gradients' mean is left out, and its decay.
        start_fraction: the share of the epochs that the optimizer trains alone first.
        every: SAM in each k-th step, the optimizer alone in the others.
        ascent_fraction: the share of each batch that the climb is computed on.
        ascent_precision: `bf16` computes the climb so; the update keeps the training's precision.
        micro_ascent: every so many images of a batch climb by themselves, and the gradients at
            their neighbors are averaged (m-sharpness); default is the whole batch together.
        same_dropout: both passes drop the same units.
    """

    rho: float = Field(0.05, ge=0, le=LARGEST_RHO, strict=True)
    variant: Literal["sam", "asam", "asam_eta", "sam_on", "msam", "fsam"] = "sam"
    eta: float = Field(0.01, ge=0, le=LARGEST_RHO, strict=True)
    sigma: float = Field(1.0, ge=0, le=LARGEST_RHO, strict=True)
    mean_decay: float = Field(0.9, ge=0, lt=1, strict=True)
    start_fraction: float = Field(0.0, ge=0, lt=1, strict=True)
    every: Count = 1
    ascent_fraction: float = Field(1.0, gt=0, le=1, strict=True)
    ascent_precision: Literal["same", "bf16"] = "same"
    micro_ascent: Count | None = None
    same_dropout: bool = Field(False, strict=True)

    def gradients_per_step(self, epochs: int) -> float:
        """What a step costs in gradients of a whole batch, on average over so many epochs.

        SAM's climb is a second one, or a share of one, in the steps and epochs that climb; `msam`
        climbs along the momentum, which costs none.
        """
        if self.rho == 0 or self.variant == "msam":
            return 1.0
        climbing = sum(epoch >= self.start_fraction * epochs for epoch in range(epochs))
        return 1 + self.ascent_fraction / self.every * climbing / epochs

    @model_validator(mode="before")
    @classmethod
    def _adaptive_is_asam(cls, raw: Any) -> Any:
        """`adaptive: true`, as the well-known implementation says it, is `variant: asam`."""
        if not isinstance(raw, dict) or "adaptive" not in raw:
            return raw
        if not isinstance(raw["adaptive"], bool):
            raise ValueError(f"adaptive must be true or false, got {raw['adaptive']!r}")
        rest = {key: value for key, value in raw.items() if key != "adaptive"}
        if not raw["adaptive"]:
            return rest
        if rest.setdefault("variant", "asam") not in ("asam", "asam_eta"):
            raise ValueError(f"adaptive: true is variant: asam, but variant is {rest['variant']}")
        return rest

    @model_validator(mode="after")
    def _climbs_of_micro_batches(self) -> SamConfig:
        if self.micro_ascent and self.variant in ("msam", "fsam"):
            raise ValueError(
                f"micro_ascent climbs along gradients of parts of a batch, and {self.variant} "
                "climbs along a mean over steps: leave one of them out"
            )
        return self


class TrainingConfig(Config):
    """How long, on what schedule and in what numbers one run trains.

    Attributes:
        epochs: passes over the training images.
        batch_size: images of a step.
        lr_schedule: how the learning rate falls: to 0, by steps, or not at all.
        label_smoothing: the share of the target that goes to all classes alike.
        seed: of the first weights, the order, augmentation and dropout.
        mixup, cutmix: alpha of the Beta distribution that says how much of each image is another's:
            all its pixels a little, or a box of them; 0 is off, and with both a batch draws one.
        micro_batch_size: compute a batch's gradients in parts of this size, for want of memory.
        lr_interval: how often the schedule lowers the learning rate.
        warmup_epochs: in which the learning rate rises from 0, step by step; may be a fraction.
        decay_norms_and_biases: whether `optimizer.weight_decay` is for norm layers and biases, too.
        ema_decay: evaluate and save an exponential moving average of the weights, of this decay.
        with_validation: train on the validation images, too, whose metrics then say nothing; for
            `samtune confirm --with-validation`.
        average_from: the share of the epochs after which the weights of each epoch are averaged;
            evaluate and save that mean.
        clip_grad_norm: the greatest norm of the gradients that the optimizer steps with.
        precision: what the model computes in; weights and optimizer stay float32. `auto` is bf16
            where the hardware is faster at it, else fp32.
        channels_last: lay images and kernels out pixel by pixel, which most hardware prefers.
        compile: `torch.compile` the model; worth it from some thousand steps on.
    """

    epochs: Count
    batch_size: Count = 128
    micro_batch_size: Count | None = None
    lr_schedule: Literal["cosine", "step", "constant"] = "cosine"
    lr_interval: Literal["epoch", "step"] = "epoch"
    warmup_epochs: float = Field(0.0, ge=0, strict=True)
    decay_norms_and_biases: bool = Field(True, strict=True)
    ema_decay: float | None = Field(None, gt=0, lt=1, strict=True)
    average_from: float | None = Field(None, ge=0, lt=1, strict=True)
    label_smoothing: float = Field(0.0, ge=0, lt=1, strict=True)
    mixup: float = Field(0.0, ge=0, le=LARGEST_ALPHA, strict=True)
    cutmix: float = Field(0.0, ge=0, le=LARGEST_ALPHA, strict=True)
    clip_grad_norm: float | None = Field(None, gt=0, strict=True)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = Field(True, strict=True)
    compile: bool = Field(False, strict=True)
    seed: int = Field(0, ge=0, lt=2**32, strict=True)
    with_validation: bool = Field(False, strict=True)

    def precision_in_words(self, resolved: Iterable[str]) -> str:
        """`auto (bf16)` where `auto` came to bf16; a named precision is itself.

        Args:
            resolved: what was computed in, once or in each epoch; empty where it is not known.
        """
        found = ", ".join(dict.fromkeys(filter(None, resolved)))
        return f"auto ({found})" if self.precision == "auto" and found else self.precision

    @property
    def averages(self) -> bool:
        """Whether a mean of the weights is evaluated and saved."""
        return self.ema_decay is not None or self.average_from is not None

    @model_validator(mode="after")
    def _settings_fit_each_other(self) -> TrainingConfig:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs must be below epochs ({self.epochs}), got {self.warmup_epochs:g}"
            )
        if self.ema_decay is not None and self.average_from is not None:
            raise ValueError("ema_decay and average_from exclude each other: leave one of them out")
        return self


class TrialConfig(Config):
    """One complete training run."""

    model: Named
    dataset: Named
    optimizer: Named
    sam: SamConfig = SamConfig()
    training: TrainingConfig

    def value_of(self, path: str) -> Any:
        """The value at a path; None where nothing is said."""
        section, _, key = path.partition(".")
        return self.model_dump(mode="json")[section].get(key)

    @property
    def hash(self) -> str:
        """Short and stable; a training state is good only for the configuration it came from.

        It is of what was said beyond the defaults, so that a setting added later, with a default
        that changes nothing, leaves the states of older studies good. A study's own copy of its
        file says every setting, so a default that changes its value is told from the old one.

        Raises:
            UnknownNameError: the model or the data set is not registered.
        """
        import samtune.data
        import samtune.models  # noqa: F401 - here, since they import torch

        said = self.model_dump(mode="json", exclude_defaults=True)
        said["model"] = _beyond_defaults(self.model, MODELS)
        said["dataset"] = _beyond_defaults(self.dataset, DATASETS)
        canonical = json.dumps(said, sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _beyond_defaults(named: Named, registry: Registry) -> dict[str, Any]:
    fields = registry[named.name].schema.model_fields

    def is_default(key: str, value: Any) -> bool:
        # As JSON: a tuple or a path in a signature is a list or a text in a file.
        return key in fields and _as_json(value) == _as_json(fields[key].default)

    said = {key: value for key, value in named.params.items() if not is_default(key, value)}
    return {"name": named.name, **said}


def _as_json(value: Any) -> str:
    return json.dumps(value, default=str)


class TrialRecord(Config):
    """All that a worker needs to know of a trial: what `trial.json` holds.

    Attributes:
        session: the one the trial was last handed out under.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    key: str
    values: dict[str, Value | list[Value]]
    metric: str
    mode: Literal["min", "max"]
    select: Literal["best", "last"]
    hash: str
    config: TrialConfig
    session: int = Field(0, ge=0)
