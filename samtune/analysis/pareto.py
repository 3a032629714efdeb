"""Trials that none beats in every objective: the Pareto set of `study.metrics`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from samtune.config.objectives import mode_of
from samtune.study import Study, Trial
from samtune.study.budget import GRADIENTS
from samtune.words import big, describe, metric, short_duration


@dataclass(frozen=True)
class Point:
    """A trial with what it has in each objective, in their order."""

    trial: str
    values: list[float]


@dataclass(frozen=True)
class ParetoSet:
    """What no trial of a study beats.

    Attributes:
        metrics: the objectives; the first ranks the trials.
        points: the trials, best first by that.
        trials: how many were compared.
        unknown: how many were not, since their journals lack an objective.
    """

    metrics: list[str]
    points: list[Point]
    trials: int
    unknown: int


def pareto_set(study: Study) -> ParetoSet | None:
    """The trials that none beats in all objectives; None where there is one."""
    metrics = study.config.study.metrics
    if len(metrics) < 2:
        return None
    points = [(t, [objective(t, name) for name in metrics]) for t in study.ranking]
    known = [(t, [v for v in values if v is not None]) for t, values in points]
    known = [(t, values) for t, values in known if len(values) == len(metrics)]
    chosen = front([values for _, values in known], [mode_of(name) for name in metrics])
    return ParetoSet(
        metrics=list(metrics),
        points=[Point(known[i][0].key, known[i][1]) for i in sorted(chosen)],
        trials=len(known),
        unknown=len(points) - len(known),
    )


def pareto_in_words(found: ParetoSet) -> str:
    """What the set is of."""
    *others, last = found.metrics
    text = (
        f"Pareto set: {len(found.points)} of {found.trials} trials, beaten by none in "
        f"{', '.join(others)} and {last} together."
    )
    if found.unknown:
        text += f" Of {found.unknown} more an earlier samtune has not written down all of these."
    return text


def pareto_columns(found: ParetoSet) -> list[str]:
    """The headings of `pareto_rows`; a number's column starts with `>`."""
    return ["trial", *(f">{name}" for name in found.metrics), "values"]


def pareto_rows(study: Study, found: ParetoSet) -> list[list[str]]:
    """A row for each trial of the set."""
    trials = {trial.key: trial for trial in study.ranking}
    return [
        [
            f"{point.trial} baseline" if trials[point.trial].is_baseline else point.trial,
            *(in_unit(name, x) for name, x in zip(found.metrics, point.values, strict=True)),
            describe(trials[point.trial].values),
        ]
        for point in found.points
    ]


def in_unit(name: str, value: float) -> str:
    """A value of an objective, in its unit."""
    match name:
        case "epoch_s":
            return short_duration(value)
        case "parameters" | "gradient_evaluations":
            return big(value)
    return metric(value)


def objective(trial: Trial, name: str) -> float | None:
    """What a trial has in an objective; None where its journal does not tell."""
    entry = trial.selected_epoch
    if entry is None:
        return None
    match name:
        case "parameters":
            return float(entry.parameters) or None
        case "epoch_s":
            return median(e.duration_s for e in trial.epochs)
        case "gradient_evaluations":
            spent = [e.metrics.get(GRADIENTS) for e in trial.epochs[: entry.epoch]]
            counted = [gradients for gradients in spent if gradients is not None]
            return sum(counted) if len(counted) == len(spent) else None
    return entry.metrics.get(name)


def front(points: Sequence[Sequence[float]], modes: Sequence[str]) -> list[int]:
    """The places of the points that no other is as good as in all and better in one.

    Equal points are all in it. In order of the first objective, a point can only be beaten by those
    before it, so that two objectives need a sort and one pass (Kung, Luccio and Preparata 1975).
    """
    signs = [-1.0 if mode == "max" else 1.0 for mode in modes]
    losses = [tuple(s * v for s, v in zip(signs, point, strict=True)) for point in points]
    order = sorted(range(len(losses)), key=losses.__getitem__)
    chosen: list[int] = []
    if len(modes) == 2:
        for i in order:
            last = losses[chosen[-1]] if chosen else None
            if last is None or losses[i][1] < last[1] or losses[i] == last:
                chosen.append(i)
        return chosen
    import numpy as np  # here, so that a study of one objective is shown without it

    kept = np.empty((len(losses), len(modes)))  # of those chosen, in its first rows
    for i in order:
        point = np.array(losses[i])
        before = kept[: len(chosen)]
        beaten = (before <= point).all(axis=1) & (before < point).any(axis=1)
        if not beaten.any():
            kept[len(chosen)] = point
            chosen.append(i)
    return chosen
