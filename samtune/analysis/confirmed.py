"""What a confirmation found: a table of finalists beside their baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

from samtune.analysis.statistics import (
    Difference,
    Mean,
    cannot_be_told_apart,
    holm,
    mean_interval,
    paired_difference,
    split_error,
)
from samtune.analysis.verdict import Claim, claim_of, sentence
from samtune.config.confirm import Finalist, Settings, TunedBaseline, with_seed
from samtune.config.schema import StudyConfig
from samtune.study.study import Trial
from samtune.words import describe


@dataclass(frozen=True)
class Baseline:
    """The optimizer alone at a finalist's settings.

    Attributes:
        equal: what it has in common with the finalist: `equal epochs`, `equal compute`.
        trials: the runs' keys, seed by seed; empty for one without a score.
        gain: of the finalist over it, in pairs; positive is better, whatever the metric's mode.
        p_holm: the t test's p value, adjusted for being one of several finalists.
        settings: what it was trained with, beside what the study's base trial says.
    """

    equal: str
    epochs: int
    trials: list[str]
    mean: Mean | None
    gain: Difference | None
    p_holm: float | None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def claim(self) -> Claim:
        """What the interval of the gain allows one to say."""
        return claim_of(self.gain)


@dataclass(frozen=True)
class Row:
    """One finalist.

    Attributes:
        trial: its key in the search.
        val_mean: of the validation metric over the new seeds; None where it was trained on.
        split_error: half the width that so many test images leave around its mean.
    """

    trial: str
    values: dict[str, Any]
    rho: float
    epochs: int
    trials: list[str]
    mean: Mean | None
    val_mean: float | None
    split_error: float | None
    baselines: list[Baseline]


@dataclass(frozen=True)
class Confirmed:
    """The table, and what follows from it.

    Attributes:
        metric: as measured on the test split.
        chosen: the finalist that the verdict is on: the best by validation over the new seeds, or
            the search's first where validation images were trained on. No test image had a say.
        alike: the finalists that the test split does not tell from the best.
        claims_gain: whether the verdict claims one over every baseline.
        tuned: the tuned baseline in words: where it was found, with which settings.
    """

    study: str
    metric: str
    mode: str
    images: int
    seeds: list[int]
    with_validation: bool
    rows: list[Row]
    chosen: str
    alike: list[str]
    claims_gain: bool
    verdict: str
    tuned: str = ""

    def as_json(self) -> dict[str, Any]:
        """The same for `confirm.json`."""
        return asdict(self)


def confirmed(
    config: StudyConfig, trials: Sequence[Trial], scores: Mapping[str, float], images: int
) -> Confirmed:
    """The table of a confirmation.

    Args:
        config: the confirmation's.
        scores: by trial, on the test split.
        images: how many it has.
    """
    assert config.confirm is not None
    seeds = config.confirm.seeds
    runs = _Runs(trials, scores, seeds, images)
    rows = _adjusted([_row(config, finalist, runs) for finalist in config.confirm.finalists])
    chosen = _chosen(rows, config)
    return Confirmed(
        study=config.confirm.study,
        metric=held_out_name(config.study.metric),
        mode=config.mode,
        images=images,
        seeds=seeds,
        with_validation=config.trial.training.with_validation,
        rows=rows,
        chosen=chosen.trial,
        alike=_alike(rows, runs, config.mode),
        claims_gain=all(b.claim == "gain" for b in chosen.baselines),
        verdict=sentence(
            {b.equal: b.gain for b in chosen.baselines},
            rho=chosen.rho,
            optimizer=config.trial.optimizer.name,
            metric=held_out_name(config.study.metric),
            is_share=config.mode == "max",
            images=images,
            pairs=len(seeds),
        ),
        tuned=_tuned_in_words(config.confirm.tuned),
    )


def _tuned_in_words(tuned: TunedBaseline | None) -> str:
    if tuned is None:
        return ""
    alone = {path: value for path, value in tuned.settings.items() if not path.startswith("sam.")}
    return f"{describe(alone)}: {tuned.trial} of {tuned.study}"


class _Runs:
    """The runs of a confirmation by their settings and seeds."""

    def __init__(
        self,
        trials: Sequence[Trial],
        scores: Mapping[str, float],
        seeds: Sequence[int],
        images: int,
    ) -> None:
        self.images = images
        self._trials = trials
        self._scores = scores
        self._seeds = seeds

    def of(self, settings: Settings) -> list[Trial | None]:
        """One run a seed; None where there is none."""
        wanted = (with_seed(settings, seed) for seed in self._seeds)
        return [next((t for t in self._trials if t.values == w), None) for w in wanted]

    def scores(self, settings: Settings) -> list[float | None]:
        """The same runs on the test split; None for one that has no score."""
        return [self._scores.get(t.key) if t else None for t in self.of(settings)]


def _row(config: StudyConfig, finalist: Finalist, runs: _Runs) -> Row:
    confirm = config.confirm
    assert confirm is not None
    trials = runs.of(finalist.values)
    scores = runs.scores(finalist.values)
    mean = _mean(scores)
    valued = [t.value for t in trials if t and t.value is not None]
    rho = finalist.values.get("sam.rho")
    assert rho is None or isinstance(rho, int | float)
    counts_images = mean is not None and "accuracy" in config.study.metric and runs.images
    return Row(
        trial=finalist.trial,
        values=finalist.values,
        rho=config.trial.sam.rho if rho is None else rho,
        epochs=config.trial.training.epochs,
        trials=_keys(trials),
        mean=mean,
        val_mean=None if config.trial.training.with_validation or not valued else fmean(valued),
        split_error=split_error(mean.mean, runs.images) if mean and counts_images else None,
        baselines=[
            _baseline(config, equal, scores, settings, runs)
            for equal, settings in confirm.baselines(finalist).items()
        ],
    )


def _baseline(
    config: StudyConfig,
    equal: str,
    ours: Sequence[float | None],
    settings: Settings,
    runs: _Runs,
) -> Baseline:
    theirs = runs.scores(settings)
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    gain = None
    if pairs:
        one, other = ([p[i] for p in pairs] for i in (0, 1))
        gain = (
            paired_difference(one, other) if config.mode == "max" else paired_difference(other, one)
        )
    epochs = settings.get("training.epochs", config.trial.training.epochs)
    assert isinstance(epochs, int)
    trials = _keys(runs.of(settings))
    return Baseline(equal, epochs, trials, _mean(theirs), gain, None, settings)


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    """The rows with Holm's p values, over the finalists, for each kind of baseline."""
    found = list(rows)
    for equal in dict.fromkeys(b.equal for row in rows for b in row.baselines):
        p_values = holm(
            [
                next((b.gain.p_value for b in row.baselines if b.equal == equal and b.gain), None)
                for row in rows
            ]
        )
        for i, p in enumerate(p_values):
            baselines = [
                replace(b, p_holm=p) if b.equal == equal else b for b in found[i].baselines
            ]
            found[i] = replace(found[i], baselines=baselines)
    return found


def _chosen(rows: Sequence[Row], config: StudyConfig) -> Row:
    """The finalist that the verdict is on; no test image has a say."""
    sign = 1 if config.mode == "max" else -1
    judged = [row for row in rows if row.val_mean is not None and row.mean]
    return max(judged, key=lambda row: sign * (row.val_mean or 0.0), default=rows[0])


def _alike(rows: Sequence[Row], runs: _Runs, mode: str) -> list[str]:
    sign = 1 if mode == "max" else -1
    scores = {row.trial: runs.scores(row.values) for row in rows}
    complete = [
        all(s is not None for s in of_seed) for of_seed in zip(*scores.values(), strict=True)
    ]
    shared = {
        key: [sign * s for s, whole in zip(found, complete, strict=True) if whole and s is not None]
        for key, found in scores.items()
    }
    return cannot_be_told_apart(shared) if any(complete) else list(scores)


def _mean(scores: Sequence[float | None]) -> Mean | None:
    known = [s for s in scores if s is not None]
    return mean_interval(known) if known else None


def _keys(trials: Sequence[Trial | None]) -> list[str]:
    return [t.key if t else "" for t in trials]


def held_out_name(metric: str) -> str:
    """What `val_accuracy` is called on the test split."""
    return f"test_{metric.removeprefix('val_')}"
