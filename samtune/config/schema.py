"""What a study file may say.

A `TrialConfig` is one complete training run; a `StudyConfig` is that run, the distributions its
settings are drawn from, and how the search goes. `study_file` makes one from a file.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from samtune.config.base import Config
from samtune.config.space import Distribution
from samtune.registry import MODELS, Count

Value = float | int | str | bool | None
BEST: dict[str, Callable[..., Any]] = {"max": max, "min": min}  # by a metric's mode
LARGEST_RHO = 1e6  # papers end at 15; a float32 overflows at 3e38
MOST_TRIALS = 1_000_000
MOST = 1024  # CPUs or GPUs of one trial, which starts as many threads
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


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
    same_dropout: bool = Field(False, strict=True)

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


class TrainingConfig(Config):
    """How long, on what schedule and in what numbers one run trains.

    Attributes:
        micro_batch_size: compute a batch's gradients in parts of this size, for want of memory.
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
    label_smoothing: float = Field(0.0, ge=0, lt=1, strict=True)
    clip_grad_norm: float | None = Field(None, gt=0, strict=True)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = Field(True, strict=True)
    compile: bool = Field(False, strict=True)
    seed: int = Field(0, ge=0, lt=2**32, strict=True)


class TrialConfig(Config):
    """One complete training run."""

    model: Named
    dataset: Named
    optimizer: Named
    sam: SamConfig = SamConfig()
    training: TrainingConfig

    @property
    def hash(self) -> str:
        """Short and stable; a training state is good only for the configuration it came from."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


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
    (Li et al. 2020); `median` stops what is below the median of the running averages (Golovin et
    al. 2017); `none` lets every trial run to its end.
    """

    name: Literal["asha", "median", "none"] = "asha"
    grace_epochs: Count = 1
    reduction_factor: Annotated[int, Field(ge=2, strict=True)] = 3

    def rung_epochs(self, epochs: int) -> list[int]:
        """Where `asha` compares trials of so many epochs; not at the last, where all end."""
        rungs = []
        rung = self.grace_epochs
        while self.name == "asha" and rung < epochs:
            rungs.append(rung)
            rung *= self.reduction_factor
        return rungs


class ResourcesConfig(Config):
    """What one trial occupies; fractions of a GPU share it."""

    cpus: Annotated[Count, Field(le=MOST)] = 1
    gpus: Literal["auto"] | float = "auto"

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


class SearchConfig(Config):
    """How the search goes: the `study:` section.

    `mode` follows from the metric and need not be given.
    """

    metric: str = "val_accuracy"
    mode: Literal["min", "max"] | None = None
    select: Literal["best", "last"] = "best"
    trials: Annotated[Count, Field(le=MOST_TRIALS)] = 24
    sampler: Literal["tpe", "random", "grid", "qmc", "cmaes", "gp", "nsga2"] = "tpe"
    seed: int = Field(0, ge=0, lt=2**32, strict=True)
    baseline: bool = Field(True, strict=True)
    scheduler: SchedulerConfig = SchedulerConfig()
    resources: ResourcesConfig = ResourcesConfig()
    max_failed_trials: Count = 5

    @field_validator("scheduler", mode="before")
    @classmethod
    def _by_name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class StudyConfig(Config):
    """A checked study file."""

    name: str = Field(pattern=NAME_PATTERN, strict=True)
    trial: TrialConfig
    search_space: dict[str, list[Distribution]] = Field(default_factory=dict)
    study: SearchConfig = SearchConfig()
    plugins: list[str] = Field(default_factory=list)

    def value_of(self, path: str) -> Any:
        """The base trial's value at a path; None where it says nothing."""
        section, _, key = path.partition(".")
        return self.trial.model_dump(mode="json")[section].get(key)

    def active(self, path: str, values: Mapping[str, Any]) -> tuple[str, Distribution] | None:
        """The distribution of `path` whose condition holds for these values, with its own name.

        The name is the path where it has one distribution, else the path with the index: to a
        sampler these are different parameters. None as well for a path that is not searched.
        """
        distributions = self.search_space.get(path, [])
        for i, distribution in enumerate(distributions):
            conditions = {c: values.get(c, self.value_of(c)) for c in distribution.when or {}}
            if distribution.applies(conditions):
                return (path if len(distributions) == 1 else f"{path}[{i}]"), distribution
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

    @property
    def wanted_trials(self) -> int:
        """How many trials the study is to sample: no more than a grid holds."""
        if self.study.sampler != "grid":
            return self.study.trials
        points = self.combinations(list(self.search_space))
        return sum(1 for _ in itertools.islice(points, self.study.trials))

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
