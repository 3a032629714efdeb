"""What a study file may say.

A `TrialConfig` is one complete training run; a `StudyConfig` is that run, the distributions its
settings are drawn from, and how the search goes. `study_file` makes one from a file.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from samtune.config.base import Config, Value
from samtune.config.confirm import ConfirmConfig
from samtune.config.space import Distribution
from samtune.errors import did_you_mean
from samtune.registry import DATASETS, MODELS, Count, Registry

BEST: dict[str, Callable[..., Any]] = {"max": max, "min": min}  # by a metric's mode
LARGEST_ALPHA = 100.0  # papers use 0.1 to 1; from here on every image is half another's
LARGEST_RHO = 1e6  # papers end at 15; a float32 overflows at 3e38
MOST_TRIALS = 1_000_000
MOST = 1024  # CPUs or GPUs of one trial, which starts as many threads
MEMORY_UNITS = {
    **{f"{prefix}B": 1000**i for i, prefix in enumerate(("k", "M", "G", "T"), 1)},
    **{f"{prefix}iB": 1024**i for i, prefix in enumerate(("K", "M", "G", "T"), 1)},
}
RAYS_OWN_RESOURCES = ("CPU", "GPU", "memory", "object_store_memory")
FEWEST_GRACE_EPOCHS = 5
KEPT_STATES = 2  # of a trial at work, the newest: one may be damaged
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


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


class SchedulerConfig(Config):
    """What stops weak trials early.

    `asha` keeps the best 1/reduction_factor at grace_epochs, grace_epochs * reduction_factor, ...
    (Li et al. 2020); `hyperband` is several of those side by side, each from a later rung on (Li et
    al. 2018); `median` stops what is below the median of the running averages (Golovin et al.
    2017); `none` lets every trial run to its end.

    Attributes:
        name: which of them.
        reduction_factor: at each rung the best 1/reduction_factor go on.
        grace_epochs: before which no trial is stopped. `auto` is a quarter of the epochs, but five
            at least: SAM with a large rho begins slowly, and what is compared earlier is who
            begins fast. A study of five epochs or fewer so stops nothing.
    """

    name: Literal["asha", "hyperband", "median", "none"] = "asha"
    grace_epochs: Literal["auto"] | Count = "auto"
    reduction_factor: Annotated[int, Field(ge=2, strict=True)] = 3

    def grace(self, epochs: int) -> int:
        """Before which epoch no trial of so many epochs is stopped."""
        if self.grace_epochs == "auto":
            return min(epochs, max(FEWEST_GRACE_EPOCHS, math.ceil(epochs / 4)))
        return self.grace_epochs

    def rung_epochs(self, epochs: int) -> list[int]:
        """Where `asha` and `hyperband` compare trials of so many epochs; not at the last one."""
        rungs = []
        rung = self.grace(epochs)
        while self.name in ("asha", "hyperband") and rung < epochs:
            rungs.append(rung)
            rung *= self.reduction_factor
        return rungs


class ResourcesConfig(Config):
    """What one trial occupies.

    Attributes:
        cpus: processor cores; as many threads compute.
        gpus: fractions of one share it; several compute each batch together; `auto` is one where
            there are any.
        memory: bytes, written with a unit as in `4GiB`; Ray puts trials on nodes by it, and holds
            no trial to it.
        accelerator_type: as Ray calls a kind of GPU, `A100` or `H100`; only nodes with it are used.
        custom: amounts of what nodes were started with under `ray start --resources`.
    """

    cpus: Annotated[Count, Field(le=MOST)] = 1
    gpus: Literal["auto"] | float = "auto"
    memory: str | None = None
    accelerator_type: Annotated[str, Field(pattern=NAME_PATTERN)] | None = None
    custom: dict[str, float] = Field(default_factory=dict)

    @field_validator("gpus", mode="before")
    @classmethod
    def _a_number_or_auto(cls, gpus: Any) -> Any:
        if gpus == "auto":
            return gpus
        if isinstance(gpus, bool) or not isinstance(gpus, int | float) or not 0 <= gpus <= MOST:
            raise ValueError(f"must be auto or a number from 0 to {MOST}, got {gpus!r}")
        if gpus > 1 and gpus % 1:
            raise ValueError(f"must be at most 1 or a whole number, got {gpus}")
        return float(gpus)

    @field_validator("memory", mode="before")
    @classmethod
    def _a_size(cls, memory: Any) -> Any:
        if memory is not None and not (isinstance(memory, str) and _bytes_of(memory)):
            units = ", ".join(MEMORY_UNITS)
            raise ValueError(f"must be a size with a unit ({units}), as in 4GiB, got {memory!r}")
        return memory

    @field_validator("custom", mode="before")
    @classmethod
    def _amounts(cls, custom: Any) -> Any:
        for name, amount in custom.items() if isinstance(custom, dict) else ():
            if name in RAYS_OWN_RESOURCES or ":" in str(name):
                raise ValueError(f"{name!r} is Ray's own and must not be set here")
            is_number = isinstance(amount, int | float) and not isinstance(amount, bool)
            if not is_number or not 0 < amount < math.inf or (amount > 1 and amount % 1):
                raise ValueError(
                    f"{name!r} must be above 0, and a whole number above 1, got {amount!r}"
                )
        return custom

    def __str__(self) -> str:
        gpus = "one GPU where there are any" if self.gpus == "auto" else f"{self.gpus:g} GPUs"
        kind = f" of type {self.accelerator_type}" if self.accelerator_type else ""
        parts = [f"{self.cpus} CPUs", f"{gpus}{kind}"]
        parts += [f"{self.memory} of memory"] if self.memory else []
        parts += [f"{amount:g} of {name}" for name, amount in self.custom.items()]
        return ", ".join(parts)

    @property
    def whole_gpus(self) -> int:
        """How many GPUs a trial has to itself at least."""
        return 0 if self.gpus == "auto" else int(self.gpus)

    @property
    def memory_bytes(self) -> int:
        """What `memory` comes to; 0 where nothing is asked for."""
        return _bytes_of(self.memory) if self.memory else 0


def _bytes_of(text: str) -> int:
    """A size in bytes; 0 for what is none."""
    found = re.fullmatch(rf"([0-9]+(?:\.[0-9]+)?) ?({'|'.join(MEMORY_UNITS)})", text)
    return int(float(found[1]) * MEMORY_UNITS[found[2]]) if found else 0


class SearchConfig(Config):
    """How the search goes: the `study:` section.

    Attributes:
        metric: what trials are compared by; any that the model's task has.
        metrics: what trials are shown by, the metric first: others of the task, `parameters`,
            `epoch_s` and `gradient_evaluations`. They are compared by the first alone, and none of
            them is beaten by another in all where they form the Pareto set.
        mode: follows from the metric and need not be given.
        select: a trial counts by its best epoch, or by its last.
        trials: how many to sample; no more than the search space has points.
        sampler: what proposes the next settings.
        seed: of the sampler; a trial's own is `training.seed`.
        scheduler: what stops weak trials early; its name alone will do.
        resources: what one trial occupies.
        baseline: one run of `trial:` with rho = 0; `tuned` also searches what is searched beside
            `sam.*` with rho = 0, in as many trials, as a study of its own.
        try_first: settings of the first trials, by path; the sampler draws what they leave out.
        warm_start: studies in the same storage whose ended trials the sampler knows of from its
            start. They are no trials of this study, which keeps what it learned from.
        audit: this share of the trials runs to its end whatever the scheduler says, to see whether
            it was right.
        time_budget: hours, over all sessions, after which no trial is begun.
        device_budget: the same for hours of training, those of all trials added up.
        gradient_budget: the same for gradient evaluations, of one image's loss each: an epoch costs
            as many as it trains on images, and one of SAM, which climbs first, twice as many.
        target: once a trial's metric is as good, no trial is begun.
        max_failed_in_row: so many trials that fail one after another end the study.
        max_failed_share: of the ended trials; when more have failed, the study ends.
        epoch_timeout: seconds after which an epoch counts as hung and its worker is replaced;
            `auto` is an hour for a worker's first epoch, then twenty times the longest so far, but
            ten minutes at least; null waits for ever.
        storage_wait: seconds that a trial waits for a storage that fails before it is left to the
            next session.
        register_model: put the best trial's model into MLflow's registry when the study ends.
        report: make the page of `samtune report` when the study ends, and put it into MLflow.
        keep_weights: so many of the best trials keep their weights, and the baseline; null is all.
    """

    metric: str = "val_accuracy"
    metrics: list[Annotated[str, Field(strict=True)]] = Field([])
    mode: Literal["min", "max"] | None = None
    select: Literal["best", "last"] = "best"
    trials: Annotated[Count, Field(le=MOST_TRIALS)] = 24
    sampler: Literal["tpe", "random", "grid", "qmc", "cmaes", "gp"] = "tpe"
    seed: int = Field(0, ge=0, lt=2**32, strict=True)
    baseline: Literal["tuned"] | bool = True
    scheduler: SchedulerConfig = SchedulerConfig()
    resources: ResourcesConfig = ResourcesConfig()
    try_first: list[dict[str, Any]] = Field([])
    warm_start: list[Annotated[str, Field(pattern=NAME_PATTERN, strict=True)]] = Field([])
    audit: float = Field(0.0, ge=0, le=1, strict=True)
    time_budget: float | None = Field(None, gt=0, strict=True)
    device_budget: float | None = Field(None, gt=0, strict=True)
    gradient_budget: float | None = Field(None, gt=0, strict=True)
    target: float | None = Field(None, strict=True)
    max_failed_in_row: Count = 5
    max_failed_share: float = Field(0.5, gt=0, le=1, strict=True)
    epoch_timeout: Literal["auto"] | Annotated[float, Field(gt=0, strict=True)] | None = "auto"
    storage_wait: float = Field(600.0, ge=0, strict=True)
    register_model: bool = Field(True, strict=True)
    report: bool = Field(True, strict=True)
    keep_weights: Count | None = 5

    @field_validator("scheduler", mode="before")
    @classmethod
    def _by_name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _the_first_ranks(cls, raw: Any) -> Any:
        metrics = raw.get("metrics") if isinstance(raw, dict) else None
        if isinstance(metrics, list) and metrics and "metric" not in raw:
            return {**raw, "metric": metrics[0]}
        return raw

    @field_validator("baseline", mode="before")
    @classmethod
    def _a_truth_value_or_tuned(cls, baseline: Any) -> Any:
        if baseline != "tuned" and not isinstance(baseline, bool):
            hint = did_you_mean(baseline, ["tuned"]) if isinstance(baseline, str) else ""
            raise ValueError(f"must be true, false or tuned, got {baseline!r}.{hint}".rstrip("."))
        return baseline

    @property
    def has_baseline(self) -> bool:
        """Whether the base trial is run with rho = 0."""
        return self.baseline is not False

    @property
    def has_budget(self) -> bool:
        """Whether anything but the number of trials ends the search."""
        limits = self.time_budget, self.device_budget, self.gradient_budget, self.target
        return any(limit is not None for limit in limits)


class BaselineOf(Config):
    """Whose tuned baseline a study is; samtune writes it, nobody types it."""

    study: str
    study_id: str


class StudyConfig(Config):
    """A checked study file.

    Attributes:
        confirm: what is trained where nothing is searched: the trials of a confirmation.
        baseline_of: the search that this study tunes the optimizer alone for.
    """

    name: str = Field(pattern=NAME_PATTERN, strict=True)
    trial: TrialConfig
    search_space: dict[str, list[Distribution]] = Field(default_factory=dict)
    study: SearchConfig = SearchConfig()
    plugins: list[str] = Field(default_factory=list)
    confirm: ConfirmConfig | None = None
    baseline_of: BaselineOf | None = None

    def value_of(self, path: str) -> Any:
        """The base trial's value at a path; None where it says nothing."""
        return self.trial.value_of(path)

    def name_of(self, path: str, i: int) -> str:
        """What a sampler knows the i-th distribution of a path by: each is its own parameter."""
        return path if len(self.search_space[path]) == 1 else f"{path}[{i}]"

    def active(self, path: str, values: Mapping[str, Any]) -> tuple[str, Distribution] | None:
        """The distribution of `path` whose condition holds for these values, after its name.

        None as well for a path that is not searched.
        """
        for i, distribution in enumerate(self.search_space.get(path, [])):
            conditions = {c: values.get(c, self.value_of(c)) for c in distribution.when or {}}
            if distribution.applies(conditions):
                return self.name_of(path, i), distribution
        return None

    def combinations(
        self, paths: Sequence[str], values: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Every combination of these paths' examples: all values, or the ends of a real range."""
        values = dict(values or {})
        if not paths:
            yield values
            return
        found = self.active(paths[0], values)
        if found is None:
            yield from self.combinations(paths[1:], values)
            return
        for example in found[1].examples:
            yield from self.combinations(paths[1:], {**values, paths[0]: example})

    def points(self) -> Iterator[dict[str, Any]]:
        """Every point of the search space; none where it has no end."""
        distributions = [d for ds in self.search_space.values() for d in ds]
        if any(d.is_endless for d in distributions):
            return iter(())
        return self.combinations(list(self.search_space))

    def count_points(self, most: int) -> int:
        """How many points the search space has, as far as `most`."""
        distributions = [d for ds in self.search_space.values() for d in ds]
        if any(d.is_endless for d in distributions):
            return most
        return sum(1 for _ in itertools.islice(self.points(), most))

    @property
    def belongs_to(self) -> str:
        """The search that a confirmation or a tuned baseline is of; empty for a search."""
        owner = self.confirm or self.baseline_of
        return owner.study if owner else ""

    @property
    def wanted_trials(self) -> int:
        """How many trials the study is to have: no more than the space has points."""
        if self.confirm:
            return len(self.confirm.runs)
        trials = self.study.trials
        return self.count_points(trials) if self.search_space else trials

    @property
    def model_names(self) -> list[str]:
        """Every model that a trial may have."""
        searched = self.search_space.get("model.name", [])
        drawn = [str(name) for distribution in searched for name in distribution.examples]
        return [*dict.fromkeys([self.trial.model.name, *drawn])]

    @property
    def keep_weights(self) -> int | None:
        """How many of the best trials keep their weights; None is all.

        Every run of a confirmation is tried on the test images at its end.
        """
        return None if self.confirm else self.study.keep_weights

    @property
    def task(self) -> str:
        """The kind of task of the base trial's model."""
        task = MODELS[self.trial.model.name].task
        assert task is not None
        return task

    @property
    def mode(self) -> Literal["min", "max"]:
        """Whether the metric is better when smaller or larger."""
        assert self.study.mode is not None, "check_study fills it in"
        return self.study.mode
