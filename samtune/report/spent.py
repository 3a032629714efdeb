"""Where the time went: the workers' timeline, and what a score cost."""

from __future__ import annotations

import heapq
from typing import Any

from samtune.report.parts import Plot, Section, Subject
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


def cost(subject: Subject) -> Section:
    """What each trial counts by against the time it took, with the Pareto front."""
    study = subject.study
    title = "Score against training cost"
    trials = [t for t in study.trials if t.value is not None]
    if len(trials) < 2:
        return Section("cost", title, ["Fewer than two trials have a score yet."])
    front = pareto(study)
    shown, notes = at_most(trials, front, MOST_POINTS // 2)
    traces = []
    for state in dict.fromkeys(t.state for t in shown):
        of_state = [t for t in shown if t.state == state and not t.is_baseline]
        if of_state:
            traces.append(_scatter(of_state, state, STATE_COLOURS[state], 8, state == "finished"))
    if study.baseline in shown and study.baseline is not None:
        traces.append(_scatter([study.baseline], "baseline, rho = 0", ORANGE, 13, True))
    line = {"color": GREEN, "shape": "hv", "width": 2}
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": [t.trained_s for t in front],
            "y": [t.value for t in front],
            "line": line,
            "hoverinfo": "skip",
        }
    )
    told = ", ".join(f"{t.key} ({metric(t.value)} for {duration(t.trained_s)})" for t in front[-4:])
    shows = (
        f"{study.metric} that each trial counts by against the seconds its epochs took, evaluation "
        "included. On the green line, the Pareto front, no other trial is both better and "
        f"cheaper; its upper end: {told}. Stopped trials (hollow) were cheap because they "
        "were stopped, and seconds compare only where trials ran on like machines."
    )
    made = figure(
        traces, x={"title": "seconds of training", "rangemode": "tozero"}, y=label(study.metric)
    )
    return Section("cost", title, [Plot(made, shows, notes)])


def pareto(study: Study) -> list[Trial]:
    """The trials, finished or stopped, that none beats at less cost; the cheapest first."""
    sign = 1 if study.config.mode == "max" else -1
    front: list[Trial] = []
    best = float("-inf")
    rated = [
        (t.trained_s, -sign * t.value, t.key, t)
        for t in study.trials
        if t.value is not None and t.state in ("finished", "stopped")
    ]
    for _, loss, _, trial in sorted(rated, key=lambda r: r[:3]):
        if -loss > best:
            best = -loss
            front.append(trial)
    return front


def _scatter(
    trials: list[Trial], name: str, colour: str, size: int, filled: bool
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [t.trained_s for t in trials],
        "y": [t.value for t in trials],
        "text": [label(f"{t.key}: {describe(t.values)}") for t in trials],
        "hovertemplate": "%{text}<br>%{y:.4f} for %{x:.1f} s<extra></extra>",
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
