"""What a study file may say.

A `StudyConfig` is one complete training run (`trial`), the distributions its settings are drawn
from, and how the search goes. `study_file` makes one from a file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from samtune.config.base import NAME_PATTERN, Config
from samtune.config.confirm import ConfirmConfig
from samtune.config.resources import ResourcesConfig
from samtune.config.space import Distribution
from samtune.config.trial import TrialConfig
from samtune.errors import did_you_mean
from samtune.registry import MODELS, Count

MOST_TRIALS = 1_000_000
FEWEST_GRACE_EPOCHS = 5
KEPT_STATES = 2  # of a trial at work, the newest: one may be damaged


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
