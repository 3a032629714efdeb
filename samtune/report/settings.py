"""All settings at once: which of them matter, and which go together in good trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from samtune.analysis.axes import Axis, axes_of, place
from samtune.analysis.scores import scored, thinned, value_at
from samtune.report.parts import Plot, Section, Subject
from samtune.report.plots import (
    BLUE,
    FIFTHS,
    MOST_POINTS,
    RED,
    at_most,
    broken,
    figure,
    label,
    name_of,
)
from samtune.study import Study, Trial
from samtune.words import describe, metric, number

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FEWEST = 10
MOST = 1000  # trials that importances are made of
TREES, FEWER_TREES = 64, 8
MANY = 400  # of which fewer trees say the same, sooner
MOST_AXES = 12
MOST_LINES = 160  # more of them hide each other
MOST_TICKS = 6


def importance(subject: Subject) -> Section:
    """How much each setting explains of the scores at the first rung, over all that reached it."""
    study = subject.study
    title = "Which settings matter"
    axes = axes_of(study.config)
    epochs = study.config.trial.training.epochs
    rung = next(iter(study.config.study.scheduler.rung_epochs(epochs)), epochs)
    reached = [t for t in study.trials if not t.is_baseline and len(t.epochs) >= rung]
    where = f"epoch {rung}" + (", the first rung" if rung < epochs else ", the last")
    if len(axes) < 2:
        return Section("importance", title, ["At most one setting was searched."])
    if len(reached) < FEWEST:
        return Section(
            "importance",
            title,
            [f"{len(reached)} trials reached {where}, and it takes {FEWEST} to tell."],
        )
    used = thinned(reached, MOST)
    scores = [value_at(t, rung) for t in used]
    if min(scores) == max(scores):
        return Section("importance", title, [f"All trials have the same score at {where}."])
    found = _importances(axes, used, scores)
    if not found:
        return Section("importance", title, ["No setting is part of every trial."])
    in_order = sorted(found.items(), key=lambda pair: pair[1])
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [share for _, share in in_order],
        "y": [name_of(path) for path, _ in in_order],
        "marker": {"color": BLUE},
        "texttemplate": "%{x:.0%}",
        "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
    }
    is_whole = len(used) == len(reached)
    count = f"all {len(used):,}" if is_whole else f"{len(used):,} of the {len(reached):,}"
    told = ", ".join(f"{path} {share:.0%}" for path, share in reversed(in_order))
    shows = (
        f"The share of what {study.metric} at {where} differs by that each setting explains "
        f"(functional ANOVA), over {count} trials that reached it, those stopped there or later "
        f"included: {told}. Later epochs may rank settings otherwise, but only the better "
        "trials reached them."
    )
    missing = [axis.path for axis in axes if axis.path not in found]
    notes = [f"Not judged, since not every trial has it: {', '.join(missing)}."] if missing else []
    made = figure(
        [trace],
        x={"title": "share explained", "tickformat": ".0%", "rangemode": "tozero"},
        y={"title": ""},
        height=160 + 36 * len(found),
    )
    return Section("importance", title, [Plot(made, shows, notes)])


def parallel(subject: Subject) -> Section:
    """A line for each trial through all its settings to its score, stopped ones too."""
    study = subject.study
    title = "All settings side by side"
    whole = axes_of(study.config)
    axes = whole[:MOST_AXES]
    values = {s.trial.key: s.value for s in scored(study)}
    trials = [t for t in study.trials if t.key in values or t.state == "diverged"]
    trials = [t for t in trials if not t.is_baseline]
    if not axes or len(values) < 2:
        why = "Nothing was searched." if not axes else "Fewer than two trials have a score yet."
        return Section("parallel", title, [why])
    sign = 1 if study.config.mode == "max" else -1
    ranked = sorted((t for t in trials if t.key in values), key=lambda t: -sign * values[t.key])
    room = min(MOST_LINES, MOST_POINTS // (len(axes) + 1))
    shown, notes = at_most(trials, ranked[: room // 8], room)
    if len(whole) > len(axes):
        notes.append(f"The first {len(axes)} of {len(whole)} settings.")
    fifth = {t.key: min(4, 5 * i // len(ranked)) for i, t in enumerate(ranked)}
    ends = min(values.values()), max(values.values())
    traces = []
    for part in reversed(range(5)):
        for state, dash in (("stopped", "dot"), ("finished", "solid")):
            group = [t for t in shown if fifth.get(t.key) == part and t.state == state]
            name = ("best fifth", "second", "third", "fourth", "last fifth")[part]
            if group:
                line = {"color": FIFTHS[4 - part], "width": 2 if part == 0 else 1, "dash": dash}
                drawn = [_line(t, axes, values, ends, study) for t in group]
                traces.append(_trace(drawn, line, f"{name}, {state}"))
    lost = [t for t in shown if t.key not in values]
    if lost:
        line = {"color": RED, "width": 1, "dash": "dash"}
        drawn = [_line(t, axes, values, ends, study) for t in lost]
        traces.append(_trace(drawn, line, "diverged, no score"))
    ticks = [_tick(axis) for axis in axes]
    ticks.append(f"<b>{label(study.metric)}</b><br>{metric(ends[0])} to<br>{metric(ends[1])}")
    shows = (
        f"A line for each trial, through its settings to its {study.metric} on the right: yellow "
        "are the best fifth, violet the last, dotted ones were stopped (the score is where trials "
        "like them ended). Where the yellow lines meet, good trials agree."
    )
    made = figure(
        traces,
        x={
            "title": "",
            "tickvals": list(range(len(axes) + 1)),
            "ticktext": ticks,
            "range": [-0.2, len(axes) + 0.2],
        },
        y={"title": "", "showticklabels": False, "range": [-0.04, 1.04], "showgrid": False},
        height=520,
        annotations=[note for i, axis in enumerate(axes) for note in _levels(i, axis)],
    )
    return Section("parallel", title, [Plot(made, shows, notes)])


def _importances(
    axes: Sequence[Axis], trials: Sequence[Trial], scores: Sequence[float]
) -> Mapping[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {axis.path: _distribution(axis) for axis in axes}
    by_path = {axis.path: axis for axis in axes}
    whole = optuna.create_study(direction="maximize")
    for trial, score in zip(trials, scores, strict=True):
        has = {p: v for p, v in trial.values.items() if p in by_path}
        whole.add_trial(
            optuna.trial.create_trial(
                params={p: _as_optuna(by_path[p], v) for p, v in has.items()},
                distributions={p: distributions[p] for p in has},
                value=score,
            )
        )
    trees = TREES if len(trials) <= MANY else FEWER_TREES
    evaluator = FanovaImportanceEvaluator(n_trees=trees, seed=0)
    found = get_param_importances(whole, evaluator=evaluator)
    return {path: float(share) for path, share in found.items()}


def _distribution(axis: Axis) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if axis.bounds is None:
        return CategoricalDistribution(range(len(axis.levels)))
    return FloatDistribution(*axis.bounds, log=axis.log)


def _as_optuna(axis: Axis, value: Any) -> Any:
    return float(value) if axis.bounds else axis.levels.index(value)


def _line(
    trial: Trial,
    axes: Sequence[Axis],
    values: Mapping[str, float],
    ends: tuple[float, float],
    study: Study,
) -> tuple[list[Any], list[Any], str]:
    ys = [
        _height(axis, trial.values[a]) if (a := axis.path) in trial.values else None
        for axis in axes
    ]
    text = f"{trial.key}: {describe(trial.values)}, {trial.state}"
    if trial.key in values:
        low, high = ends
        at = (values[trial.key] - low) / (high - low) if high > low else 0.5
        ys.append(at if study.config.mode == "max" else 1 - at)
        text += f", {study.metric} {metric(values[trial.key])}"
    return list(range(len(ys))), ys, label(text)


def _height(axis: Axis, value: Any) -> float:
    if axis.bounds:
        return place(value, *axis.bounds, log=axis.log)
    return axis.levels.index(value) / max(1, len(axis.levels) - 1)


def _trace(lines: Sequence[Any], line: dict[str, Any], name: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        **broken(lines),
        "mode": "lines",
        "line": line,
        "name": name,
        "hovertemplate": "%{text}<extra></extra>",
    }


def _tick(axis: Axis) -> str:
    name = f"<b>{name_of(axis.path)}</b>"
    if not axis.bounds:
        return name
    low, high = (label(number(float(end))) for end in axis.bounds)
    return f"{name}<br>{low} to<br>{high}" + (", log" if axis.log else "")


def _levels(at: int, axis: Axis) -> list[dict[str, Any]]:
    """The choices of an axis, written beside it."""
    if axis.bounds or len(axis.levels) > MOST_TICKS:
        return []
    return [
        {
            "x": at,
            "y": _height(axis, level),
            "text": label(level),
            "showarrow": False,
            "xanchor": "right",
            "xshift": -4,
            "yshift": 9,
        }
        for level in axis.levels
    ]
