"""Where the time went: the workers' timeline, and what a score cost."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from samtune.analysis.pareto import (
    front,
    in_unit,
    objective,
    pareto_columns,
    pareto_in_words,
    pareto_rows,
    pareto_set,
)
from samtune.config.objectives import COSTS, mode_of
from samtune.report.parts import Part, Plot, Section, Subject, Table
from samtune.report.plots import (
    GREEN,
    MOST_POINTS,
    ORANGE,
    STATE_COLOURS,
    at_most,
    figure,
    label,
)
from samtune.study import Study, Trial
from samtune.words import describe, duration, metric

UNITS = ((7200.0, 3600.0, "hours"), (120.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))


def timeline(subject: Subject) -> Section:
    """Which trial was trained when, in as many lanes as ran at once."""
    study = subject.study
    title = "Timeline of the workers"
    spans = _spans(study)
    if not spans:
        return Section("timeline", title, ["No trial has finished an epoch yet."])
    first = min(start for start, _, _ in spans)
    last = max(end for _, end, _ in spans)
    seconds = (last - first) / 1000
    size, unit = next((size, unit) for least, size, unit in UNITS if seconds >= least)
    lanes = _lanes(spans)
    count = max(lanes) + 1
    busy = sum(t.trained_s for t in study.trials)
    best = {t.key for t in study.ranking[:20]}
    rows = list(zip(spans, lanes, strict=True))
    shown, notes = at_most(rows, [r for r in rows if r[0][2].key in best], MOST_POINTS)
    traces = []
    for state in dict.fromkeys(trial.state for (_, _, trial), _ in shown):
        of_state = [row for row in shown if row[0][2].state == state]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": state,
                "y": [f"slot {lane + 1}" for _, lane in of_state],
                "base": [(start - first) / 1000 / size for (start, _, _), _ in of_state],
                "x": [(end - start) / 1000 / size for (start, end, _), _ in of_state],
                "text": [
                    label(f"{t.key}: {describe(t.values)}, {t.state} after {len(t.epochs)} epochs")
                    for (_, _, t), _ in of_state
                ],
                "textposition": "none",
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {
                    "color": STATE_COLOURS[state],
                    "line": {"width": 1, "color": "rgba(255,255,255,0.7)"},
                },
            }
        )
    shows = (
        f"A bar for each trial, from the start of its first epoch to the end of its last, over "
        f"{duration(seconds)}. At most {count} {'were' if count > 1 else 'was'} trained at once, "
        f"and epochs took {duration(busy)} in all"
    )
    shows += (
        f": the slots were busy {busy / (seconds * count):.0%} of the time." if seconds else "."
    )
    made = figure(
        traces,
        x={"title": f"{unit} since the first epoch began", "rangemode": "tozero"},
        y={"title": "", "categoryorder": "array", "categoryarray": _slots(count)},
        height=180 + 26 * count,
        barmode="overlay",
    )
    return Section("timeline", title, [Plot(made, shows, notes)])


@dataclass(frozen=True)
class _Axis:
    """What scores are drawn against.

    Attributes:
        of: what a trial has of it; None where that is not known.
        mode: which way it is better.
        explained: it in words, for the sentence beside the plot.
        title: of the plot's axis.
    """

    of: Callable[[Trial], float | None]
    shown: Callable[[float], str]
    mode: str
    explained: str
    title: str


def cost(subject: Subject) -> Section:
    """What each trial counts by against the other objectives, or the time it took."""
    study = subject.study
    title = "Score against training cost"
    if sum(t.value is not None for t in study.trials) < 2:
        return Section("cost", title, ["Fewer than two trials have a score yet."])
    parts: list[Part] = []
    if found := pareto_set(study):
        title = "Score against the other objectives"
        caption = pareto_in_words(found)
        parts.append(Table(caption, pareto_columns(found), pareto_rows(study, found)))
        parts += [_against(study, _objective_axis(name)) for name in found.metrics[1:]]
    else:
        parts.append(_against(study, _SECONDS))
    return Section("cost", title, parts)


def _objective_axis(name: str) -> _Axis:
    explained = f"{name} ({COSTS[name]})" if name in COSTS else name
    return _Axis(
        of=lambda trial: objective(trial, name),
        shown=lambda value: in_unit(name, value),
        mode=mode_of(name),
        explained=explained,
        title=name,
    )


_SECONDS = _Axis(
    of=lambda trial: trial.trained_s,
    shown=duration,
    mode="min",
    explained="the seconds its epochs took, evaluation included",
    title="seconds of training",
)


def _against(study: Study, axis: _Axis) -> Plot:
    rated = [(t, axis.of(t)) for t in study.trials if t.value is not None]
    places = {trial.key: place for trial, place in rated if place is not None}
    trials = [t for t in study.trials if t.key in places]
    best = _unbeaten(study, axis)
    kept, notes = at_most(trials, best, MOST_POINTS // 2)
    traces = []
    for state in dict.fromkeys(t.state for t in kept):
        of_state = [t for t in kept if t.state == state and not t.is_baseline]
        if of_state:
            filled = state == "finished"
            traces.append(_scatter(of_state, places, axis, state, STATE_COLOURS[state], 8, filled))
    if study.baseline in kept and study.baseline is not None:
        alone = [study.baseline]
        traces.append(_scatter(alone, places, axis, "baseline, rho = 0", ORANGE, 13, True))
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": [places[t.key] for t in best],
            "y": [t.value for t in best],
            "line": {"color": GREEN, "shape": "hv", "width": 2},
            "hoverinfo": "skip",
        }
    )
    told = ", ".join(
        f"{t.key} ({metric(t.value)} for {axis.shown(places[t.key])})" for t in best[-4:]
    )
    shows = (
        f"{study.metric} that each trial counts by against {axis.explained}. On the green line, "
        "the Pareto front, no other trial is as good in both and better in one; its upper end: "
        f"{told}."
    )
    if axis is _SECONDS:
        shows += (
            " Stopped trials (hollow) were cheap because they were stopped, and seconds compare "
            "only where trials ran on like machines."
        )
    made = figure(traces, x={"title": axis.title, "rangemode": "tozero"}, y=label(study.metric))
    return Plot(made, shows, notes)


def pareto(study: Study) -> list[Trial]:
    """The trials, finished or stopped, that none beats at fewer seconds; the shortest first."""
    return _unbeaten(study, _SECONDS)


def _unbeaten(study: Study, axis: _Axis) -> list[Trial]:
    """The trials, finished or stopped, that none beats in score and on the axis, along it."""
    rated = [
        (t, t.value, x)
        for t in study.trials
        if t.value is not None
        and t.state in ("finished", "stopped")
        and (x := axis.of(t)) is not None
    ]
    chosen = front([(x, value) for _, value, x in rated], (axis.mode, study.config.mode))
    return [rated[i][0] for i in chosen]


def _scatter(
    trials: list[Trial],
    places: Mapping[str, float],
    axis: _Axis,
    name: str,
    colour: str,
    size: int,
    filled: bool,
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [places[t.key] for t in trials],
        "y": [t.value for t in trials],
        "text": [
            label(f"{t.key}: {describe(t.values)}; {axis.shown(places[t.key])}") for t in trials
        ],
        "hovertemplate": "%{text}<br>%{y:.4f}<extra></extra>",
        "marker": {"color": colour, "size": size, "symbol": "circle" if filled else "circle-open"},
    }


def _spans(study: Study) -> list[tuple[float, float, Trial]]:
    """Start and end in milliseconds of each stretch in which an attempt trained a trial."""
    spans = []
    for trial in study.trials:
        for attempt in dict.fromkeys(e.by for e in trial.epochs):
            of_it = [e for e in trial.epochs if e.by == attempt]
            start = of_it[0].time_ms - 1000 * of_it[0].duration_s
            spans.append((start, float(of_it[-1].time_ms), trial))
    return sorted(spans, key=lambda s: (s[0], s[2].key))


def _lanes(spans: list[tuple[float, float, Trial]]) -> list[int]:
    """For each stretch the lowest lane that is free at its start."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    lanes = []
    for start, end, _ in spans:
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (end, lane))
        lanes.append(lane)
    return lanes


def _slots(count: int) -> list[str]:
    return [f"slot {lane}" for lane in range(count, 0, -1)]
