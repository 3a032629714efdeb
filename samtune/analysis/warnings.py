"""What speaks against a study's answer; each rule is made so that a sound study earns none."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np

from samtune.analysis.axes import axes_of, matrix, place
from samtune.analysis.results import Kind, StudyWarning
from samtune.analysis.scores import scored, thinned
from samtune.analysis.surface import Surface
from samtune.analysis.tuned import score_alone
from samtune.config.space import FloatRange, IntRange
from samtune.study import Study, Trial
from samtune.study.trial_folder import FAILED_STATES

EDGE = 0.05  # of a range, at either end
# Gaussian processes want 10 (Loeppky et al. 2009); TPE begins to learn at 10 in all.
TRIALS_PER_SETTING = 5
NO_EFFECT = 0.02  # of the range of all scores
MOST_BACKGROUND = 30
CHANGES = 9  # places on an axis at which its effect is looked at
MOST_IMAGES = 1_000_000
ROUNDING = 1e-15  # of a share; any number is within 1e-12 of some share of so many
SURE = 1.96  # standard errors, 95 % on two sides
SURE_AT_MOST = 1.645  # 95 % on one side


def warnings_of(study: Study) -> list[StudyWarning]:
    """Everything that speaks against the answer of a study; of one that runs, so far."""
    found: list[tuple[Kind, Iterable[str]]] = [
        ("edge", edges(study)),
        ("edge", _edges_of_the_baseline(study)),
        ("few_trials", _few_trials(study)),
        ("no_effect", _without_effect(study)),
        ("equal_trials", _equal_trials(study)),
        ("small_split", _small_split(study)),
        ("baseline", _unequal_baseline(study)),
    ]
    return [StudyWarning(kind, sentence) for kind, sentences in found for sentence in sentences]


def edges(study: Study) -> list[str]:
    """A sentence for each searched number whose best value lies at the end of its range.

    The outer twentieth of the range counts as its end, on the log scale where the range has one.
    """
    best = study.best
    if best is None or best.is_baseline:
        return []
    lines = []
    for path, value in best.values.items():
        found = study.config.active(path, best.values)
        if not found or not isinstance(found[1], FloatRange | IntRange):
            continue
        at = place(value, *found[1].bounds, log=found[1].log)
        if not EDGE < at < 1 - EDGE:
            end, word = ("lower", "smaller") if at < 0.5 else ("upper", "larger")
            lines.append(
                f"{path}: the best value, {value:.4g}, is at the {end} end of its range; "
                f"{word} ones may be better."
            )
    return lines


def _edges_of_the_baseline(study: Study) -> list[str]:
    """The same of a tuned baseline, which so may not be at its best."""
    tuned = study.tuned_baseline
    return [f"In {tuned.name}, {line}" for line in edges(tuned)] if tuned else []


def _few_trials(study: Study) -> list[str]:
    """Fewer trials than five for each setting that one trial draws, or than the space has points.

    What is still to be run counts, what failed does not.
    """
    sampled = [t for t in study.trials if not t.is_baseline]
    settings = max((len(t.values) for t in sampled), default=0)
    failed = sum(t.state in FAILED_STATES for t in sampled)
    to_come = study.config.wanted_trials if study.left else 0
    trials = max(len(sampled), to_come) - failed
    needed = study.config.count_points(TRIALS_PER_SETTING * settings)
    if not sampled or trials >= needed:
        return []
    return [
        f"{trials} trials are few for {settings} searched settings: the best of them is more luck "
        f"than search. Take {needed} or more, or search fewer settings."
    ]


def _without_effect(study: Study) -> list[str]:
    """Settings that surely change the score by next to nothing.

    The effect of a setting is the mean score over the trials' other settings as it alone changes
    (partial dependence, Friedman 2001), from the Gaussian process over all of them. That no effect
    can be seen is not enough: its upper bound at 95 % must be below a fiftieth of what the scores
    differ by.
    """
    used = thinned(scored(study))
    axes = axes_of(study.config)
    if len(used) < TRIALS_PER_SETTING * sum(axis.width for axis in axes) or len(axes) < 2:
        return []
    values = [s.value for s in used]
    spread = max(values) - min(values)
    if spread == 0:
        return []
    columns = matrix(axes, [s.trial.values for s in used])
    surface = Surface(columns, values, [s.variance for s in used])
    rows = columns[:: max(1, math.ceil(len(columns) / MOST_BACKGROUND))]
    sentences, first = [], 0
    for axis in axes:
        changed = []
        here = slice(first, first + axis.width)
        first += axis.width
        for at in _places(axis.levels, axis.is_ordered, axis.width):
            changed.append(rows.copy())
            changed[-1][:, here] = at
        bound = surface.greatest_difference(changed, SURE_AT_MOST)
        if bound < NO_EFFECT * spread:
            sentences.append(
                f"{axis.path} has no effect: it changes {study.metric} by {bound:.2g} at most, "
                f"where trials differ by {spread:.2g}. Leave it out of the search."
            )
    return sentences


def _places(levels: tuple[Any, ...], is_ordered: bool, width: int) -> list[list[float]]:
    if is_ordered:
        count = len(levels) if levels else CHANGES
        return [[float(x)] for x in np.linspace(0, 1, max(2, min(count, CHANGES)))]
    return [[float(i == j) / math.sqrt(2) for j in range(width)] for i in range(width)]


def _equal_trials(study: Study) -> list[str]:
    """Trials with different settings whose epochs are equal to the last bit.

    What differs between them cannot have reached the training. Settings that begin later than the
    epochs that both have are no surprise.
    """
    by_start: dict[tuple[tuple[str, float], ...], list[Trial]] = {}
    for trial in study.trials:
        if trial.epochs and not trial.is_baseline:
            by_start.setdefault(tuple(trial.epochs[0].metrics.items()), []).append(trial)
    for alike in by_start.values():
        for one, other in itertools.combinations(alike, 2):
            common = min(len(one.epochs), len(other.epochs))
            pairs = zip(one.epochs[:common], other.epochs[:common], strict=True)
            if any(a.metrics != b.metrics for a, b in pairs):
                continue
            if _begun(one, common) == _begun(other, common):
                continue
            differing = ", ".join(
                path
                for path in dict.fromkeys([*one.values, *other.values])
                if one.values.get(path) != other.values.get(path)
            )
            return [
                f"{one.key} and {other.key} differ in {differing}, and their first {common} epochs "
                "are equal to the last digit: the setting does not reach the training."
            ]
    return []


def _begun(trial: Trial, epochs: int) -> dict[str, Any]:
    """The trial's settings that can have shown in so many epochs."""
    said: dict[str, Any] = trial.config.model_dump(mode="json")
    training = said["training"]
    whole = training["epochs"]
    if said["sam"]["start_fraction"] * whole >= epochs:
        del said["sam"]
    if training["average_from"] is not None and training["average_from"] * whole >= epochs:
        training["average_from"] = None
    if epochs == 1 and training["lr_interval"] == "epoch":
        del training["lr_schedule"]
    return said


def _small_split(study: Study) -> list[str]:
    """A gain over the best baseline that is within the binomial error of the validation images.

    The error is that of two shares of different images: what both models get right or wrong alike
    makes it smaller, and how much is not known here.
    """
    best, alone = study.best, score_alone(study)
    if not study.metric.endswith("accuracy") or best is None or best.is_baseline:
        return []
    images = images_of(study)
    if images is None or alone is None or best.value is None:
        return []
    shares = best.value, alone
    error = SURE * math.sqrt(sum(p * (1 - p) for p in shares) / images)
    gain = best.value - alone
    if gain > error or gain < 0:  # a tuned baseline above it is no gain, and said elsewhere
        return []
    return [
        f"The validation split of {images:,} images is too small for the gain it is to show: "
        f"{gain:+.4f}, where {error:.4f} may be chance (95 %)."
    ]


def images_of(study: Study) -> int | None:
    """How many images the validation split has, read off the accuracies; None if they do not tell.

    Each accuracy is a whole number of images divided by all of them.
    """
    images = 1
    for value in {e.metrics[study.metric] for trial in study.trials for e in trial.epochs}:
        share = Fraction(value).limit_denominator(MOST_IMAGES)
        if abs(float(share) - value) > ROUNDING:
            return None
        images = math.lcm(images, share.denominator)
        if images > MOST_IMAGES:
            return None
    return images if images > 1 else None


def _unequal_baseline(study: Study) -> list[str]:
    """A baseline that was given more epochs than the trials it beat, or fewer than its victor."""
    best, baseline = study.best, study.baseline
    if best is None or baseline is None or not baseline.epochs:
        return []
    sampled = [t for t in study.trials if not t.is_baseline]
    stopped = [t for t in sampled if t.state == "stopped"]
    epochs = len(baseline.epochs)
    if best.is_baseline and 2 * len(stopped) > len(sampled):
        return [
            f"The baseline was never stopped, and {len(stopped)} of {len(sampled)} trials with SAM "
            f"were: their scores at epoch {max(len(t.epochs) for t in stopped)} or before stand "
            f"against its {epochs} epochs. Take a larger study.scheduler.grace_epochs, or "
            "study.scheduler: none."
        ]
    if not best.is_baseline and epochs < len(best.epochs):
        return [
            f"The baseline has {epochs} epochs and {best.key}, which is said to beat it, has "
            f"{len(best.epochs)}: they do not compare."
        ]
    return []
