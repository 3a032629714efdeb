"""The recommendation: which rho to take, how sure that is, and whether rho matters at all.

The score of every trial that finished or was stopped (`scores`) is regressed on log rho and the
other searched settings (`surface`). At given other settings the recommended rho is the middle, on
the log scale, of the plateau: the stretch around the best predicted score in which the prediction
is within one standard error of that best. A trial's own score is one noisy draw, and the best of
many draws is lucky; the middle of a plateau is not. Whether rho matters is a likelihood-ratio test
at 5 %.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from samtune.analysis.axes import Axis, axes_of, matrix
from samtune.analysis.results import Band, Response
from samtune.analysis.scores import Scored, scored, thinned
from samtune.analysis.surface import Surface, p_without
from samtune.config.space import IntRange
from samtune.study import Study, Trial

RHO = "sam.rho"
GRID = 61
FEWEST = 6
FEWEST_RHOS = 4
MOST_SLICES = 12
MOST_LEVELS = 4
SIGNIFICANT = 0.05
# What is maximised is a share, what is minimised a loss; a Gaussian process knows neither's end.
POSSIBLE = {"max": (-math.inf, 1.0), "min": (0.0, math.inf)}


def response(study: Study) -> Response | None:
    """What the study's trials say of rho; None where rho was not searched.

    Trials with rho = 0 are left out, having no place on the log scale, and so are those of another
    `sam.variant` than the best trial's, whose rho is another measure.
    """
    if RHO not in study.config.search_space:
        return None
    best = next((t for t in study.ranking if not t.is_baseline), None)
    used = thinned([s for s in scored(study) if is_comparable(s.trial, best)])
    diverged = [t for t in study.trials if t.state == "diverged" and is_comparable(t, best)]
    stopped = sum(s.trial.state == "stopped" for s in used)
    counts = study.metric, len(used), stopped, len(diverged)
    axes = [a for a in axes_of(study.config) if a.path != RHO]
    if best is None or (missing := _too_few(used, sum(axis.width for axis in axes))):
        sentence = missing if best is not None else "No trial has a score yet."
        return Response(*counts, None, None, None, sentence)
    logs = [math.log(s.trial.config.sam.rho) for s in used]
    ends = min(logs), max(logs)
    columns = _columns(axes, ends, [(s.trial.config.sam.rho, s.trial.values) for s in used])
    values, variances = [s.value for s in used], [s.variance for s in used]
    surface = Surface(columns, values, variances)
    p_value = p_without(surface, [0])
    mode = study.config.mode
    settings = {path: value for path, value in best.values.items() if path != RHO}
    band = _band(surface, axes, ends, settings, mode)
    varied, combinations = _combinations(study, axes, used)
    slices = [_band(surface, axes, ends, {**settings, **c}, mode) for c in combinations]
    rho = band.recommended if p_value < SIGNIFICANT else None
    sentence = _in_words(study, band, used, diverged, p_value)
    return Response(*counts, rho, p_value, band, sentence, slices, varied)


def is_comparable(trial: Trial, best: Trial | None) -> bool:
    """Whether a trial's rho is of the best one's kind: on the log scale, and of its variant."""
    if trial.is_baseline or trial.config.sam.rho <= 0:
        return False
    return best is None or trial.config.sam.variant == best.config.sam.variant


def _too_few(used: Sequence[Scored], others: int) -> str:
    """Why so many trials say nothing of so many settings beside rho; empty where they do."""
    needed = max(FEWEST, 2 * (others + 2))
    if len(used) < needed:
        return (
            f"Too few trials to recommend a rho: {len(used)} with a score, and {needed} are needed."
        )
    rhos = len({s.trial.config.sam.rho for s in used})
    if rhos < FEWEST_RHOS:
        return f"Too few values of rho to recommend one: {rhos}, and {FEWEST_RHOS} are needed."
    return ""


def _columns(
    axes: Sequence[Axis], ends: tuple[float, float], trials: Sequence[tuple[float, dict[str, Any]]]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    low, high = ends
    rho = [[(math.log(rho) - low) / (high - low)] for rho, _ in trials]
    return np.hstack([np.array(rho), matrix(axes, [values for _, values in trials])])


def _band(
    surface: Surface,
    axes: Sequence[Axis],
    ends: tuple[float, float],
    settings: dict[str, Any],
    mode: str,
) -> Band:
    grid = np.exp(np.linspace(ends[0], ends[1], GRID))
    mean, error = surface.predict(_columns(axes, ends, [(rho, settings) for rho in grid]))
    mean = mean.clip(*POSSIBLE[mode])
    score = mean if mode == "max" else -mean
    best = int(np.argmax(score))
    inside = score >= score[best] - error[best]
    first = last = best
    while first > 0 and inside[first - 1]:
        first -= 1
    while last < GRID - 1 and inside[last + 1]:
        last += 1
    middle = (first + last) // 2
    return Band(
        settings,
        grid.tolist(),
        mean.tolist(),
        error.tolist(),
        (float(grid[first]), float(grid[last])),
        float(grid[middle]),
        float(mean[middle]),
        float(error[middle]),
    )


def _combinations(
    study: Study, axes: Sequence[Axis], used: Sequence[Scored]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Settings with a few values, and the combinations tried; none where they are too many."""
    few = []
    for axis in axes:
        tried = {repr(s.trial.values.get(axis.path)) for s in used}
        whole = all(isinstance(d, IntRange) for d in study.config.search_space[axis.path])
        if (axis.levels or whole) and 2 <= len(tried) <= MOST_LEVELS:
            few.append(axis.path)
    found = [{p: s.trial.values[p] for p in few if p in s.trial.values} for s in used]
    found.sort(key=lambda c: [(str(type(v)), str(v).zfill(8)) for v in c.values()])
    distinct = [c for c, _ in itertools.groupby(found)]
    return (few, distinct) if few and len(distinct) <= MOST_SLICES else ([], [])


def _in_words(
    study: Study,
    band: Band,
    used: Sequence[Scored],
    diverged: Sequence[Trial],
    p_value: float,
) -> str:
    low, high = band.rho[0], band.rho[-1]
    if p_value >= SIGNIFICANT:
        return (
            f"No rho is better than another here: from {low:.2g} to {high:.2g}, over {len(used)} "
            f"trials, {study.metric} does not depend on it beyond its noise (p = {p_value:.2f})."
        )
    where = ", ".join(f"{path.partition('.')[2]} {_short(v)}" for path, v in band.settings.items())
    text = f"Recommended rho {band.recommended:.2g}"
    text += f" at {where}" if where else ""
    text += f": {study.metric} {band.value:.4f} +- {band.error:.4f} expected; "
    first, last = band.plateau
    text += f"from {first:.2g} to {last:.2g} nothing better can be told."
    if last == high and not diverged:
        text += " Larger ones were not tried."
    elif first == low:
        text += " Smaller ones were not tried."
    if diverged:
        least = min(t.config.sam.rho for t in diverged)
        count = len(diverged)
        text += f" {count} trial{'s' * (count > 1)} diverged, the least rho of them {least:.2g}."
    return text


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
