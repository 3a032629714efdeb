"""The score against rho: with its fit, beside every other setting, and where trials diverged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from samtune.analysis import Band, answer
from samtune.analysis.axes import Axis, axes_of
from samtune.analysis.response import RHO, is_comparable
from samtune.analysis.scores import Scored, scored, thinned
from samtune.errors import SamtuneError
from samtune.report.parts import Part, Plot, Section, Subject
from samtune.report.plots import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    MOST_POINTS,
    RED,
    SCALE,
    faint,
    figure,
    horizontal,
    label,
    legend_line,
    log_axis,
    name_of,
    vertical,
)
from samtune.study import Study, Trial
from samtune.words import describe, metric

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Figure

NOT_SEARCHED = "sam.rho was not searched in this study, so there is no score against it."


def against_rho(subject: Subject) -> Section:
    """Every score against rho, the fit with its band, and the plateau to choose from."""
    study, found = subject.study, subject.response
    title = "Score against rho"
    if found is None:
        return Section("rho", title, [NOT_SEARCHED])
    used, diverged = _with_rho(study)
    parts: list[Part] = [found.sentence]
    if not used:
        return Section("rho", title, parts)
    points = thinned(used, MOST_POINTS // 2)
    notes = _thinned_note(len(points), len(used))
    traces, shapes, band = [], [], found.band
    shows = (
        f"{study.metric} of each trial against its rho. Filled points finished; hollow ones were "
        "stopped, and stand where the finished trials' gains from there on would have taken them."
    )
    if band is not None:
        traces += band_traces(band, BLUE, "fit")
        at = describe(band.settings)
        shows += f" The line is a Gaussian process{f' at {at}' if at else ''}, where the best "
        shows += "trial is, the band one standard error around it."
    same = [s for s in points if band and found.varied and _is_at(s.trial, band, found.varied)]
    if len(same) < len(points) and same:
        shows += " Points at other settings are grey: the line is not theirs."
    others = {s.trial.key for s in points} - {s.trial.key for s in same}
    rest = [s for s in points if s.trial.key in others] if same else []
    traces += _points(rest, GREY, "other settings") if rest else []
    traces += _points(same or points, BLUE, "trials")
    if found.rho is not None and band is not None:
        low, high = band.plateau
        shapes += [_plateau(low, high), vertical(found.rho, colour=GREEN, dash="solid")]
        traces.append(legend_line(f"recommended rho {found.rho:.2g}", colour=GREEN, dash="solid"))
        shows += (
            f" Shaded green is the plateau, {low:.2g} to {high:.2g}, where nothing better can be "
            f"told; its middle, {found.rho:.2g}, is the rho to take."
        )
    if study.baseline and study.baseline.value is not None:
        shapes.append(horizontal(study.baseline.value))
        traces.append(legend_line("baseline, rho = 0"))
        shows += f" The dashed line is the baseline, {metric(study.baseline.value)}."
    if diverged:
        values = [s.value for s in used]
        if study.baseline and study.baseline.value is not None:
            values.append(study.baseline.value)
        crosses = thinned(diverged, MOST_POINTS // 4)
        traces.append(_diverged(crosses, [min(values)] * len(crosses)))
        count = len(diverged)
        shows += f" The red crosses, drawn at the least score: {count} diverged and {_have(count)} "
        shows += "no score."
    y = label(study.metric)
    made = figure(traces, x=_rho_axis(used, diverged), y=y, height=480, shapes=shapes)
    return Section("rho", title, [*parts, Plot(made, shows, notes)])


def rho_figure(study: Study) -> Figure:
    """The same plot for a notebook.

    Raises:
        SamtuneError: there is none; it says why.
    """
    import plotly.io

    section = against_rho(Subject(study, answer(study)))
    plots = [part for part in section.parts if isinstance(part, Plot)]
    if not plots:
        raise SamtuneError(" ".join(str(part) for part in section.parts))
    made = plotly.io.from_json(plots[0].figure)
    made.update_layout(title=f"{study.name}: {section.title.lower()}", margin={"t": 80})
    return made


def beside_rho(subject: Subject) -> Section:
    """Rho and each of the other settings together."""
    study, found = subject.study, subject.response
    title = "Rho and the other settings"
    others = [axis for axis in axes_of(study.config) if axis.path != RHO]
    if found is None:
        return Section("settings", title, [NOT_SEARCHED])
    if not others:
        return Section("settings", title, ["Nothing but rho was searched."])
    used, diverged = _with_rho(study)
    if not used:
        return Section("settings", title, ["No trial has a score yet."])
    parts: list[Part] = []
    for axis in others:
        with_it = [s for s in used if axis.path in s.trial.values]
        if not with_it:
            parts.append(f"No trial with a score has {axis.path}.")
        elif axis.path in found.varied:
            parts.append(_by_level(subject, axis, with_it))
        else:
            parts.append(_map(study, axis, with_it, diverged))
    return Section("settings", title, parts)


def divergence(subject: Subject) -> Section:
    """Where in the space trials diverged."""
    study = subject.study
    title = "Where trials diverged"
    diverged = [t for t in study.trials if t.state == "diverged"]
    if not diverged:
        return Section("divergence", title, ["No trial diverged."])
    paths = list(study.config.search_space)
    which = "; ".join(f"{t.key} ({describe(t.values)})" for t in diverged[:5])
    more = f", and {len(diverged) - 5} more" if len(diverged) > 5 else ""
    told = f"{len(diverged)} of {len(study.trials)} trials diverged: {which}{more}."
    axes = {axis.path: axis for axis in axes_of(study.config)}
    numeric = [p for p in paths if axes[p].bounds]
    numeric.sort(key=lambda p: (p != RHO, "lr" not in p))
    if not numeric:
        return Section("divergence", title, [told])
    x, y = numeric[0], (numeric[1] if len(numeric) > 1 else None)
    traces = []
    for name, colour, symbol, chosen in (
        (
            "did not diverge",
            BLUE,
            "circle-open",
            [t for t in study.trials if t.state != "diverged"],
        ),
        ("diverged", RED, "x", diverged),
    ):
        drawn = thinned([t for t in chosen if _has(t, x, y)], MOST_POINTS // 2)
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [t.values[x] for t in drawn],
                "y": [t.values[y] if y else len(t.epochs) for t in drawn],
                "text": [label(f"{t.key}: {describe(t.values)}") for t in drawn],
                "marker": {"color": colour, "symbol": symbol, "size": 9},
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    shows = f"A red cross for each trial that diverged, by {x} and {y or 'the epochs it has'}."
    y_axis = _scaled(axes[y]) if y else {"title": "epochs"}
    made = figure(traces, x=_scaled(axes[x]), y=y_axis)
    return Section("divergence", title, [told, Plot(made, shows)])


def _with_rho(study: Study) -> tuple[list[Scored], list[Trial]]:
    """What the recommendation is made of, and what diverged beside it."""
    best = next((t for t in study.ranking if not t.is_baseline), None)
    used = [s for s in scored(study) if is_comparable(s.trial, best)]
    diverged = [t for t in study.trials if t.state == "diverged" and is_comparable(t, best)]
    return used, diverged


def _by_level(subject: Subject, axis: Axis, used: Sequence[Scored]) -> Plot:
    """A fit for each value of a setting that has a few, the others as the best trial has them."""
    study, found = subject.study, subject.response
    assert found is not None
    others = [p for p in found.varied if p != axis.path]
    traces: list[dict[str, Any]] = []
    unfitted: list[str] = []
    best = found.band.settings if found.band else {}
    levels = sorted(
        {repr(s.trial.values[axis.path]): s.trial.values[axis.path] for s in used}.values(),
        key=_order,
    )
    points = thinned(used, MOST_POINTS // 2)
    for level, colour in zip(levels, COLOURS, strict=False):
        name = f"{name_of(axis.path)} {label(level)}"
        at = [b for b in found.slices if b.settings.get(axis.path) == level]
        fits = [b for b in at if all(b.settings.get(p) == best.get(p) for p in others)]
        traces += band_traces(fits[0], colour, name, is_named=False) if fits else []
        unfitted += [] if fits else [str(level)]
        traces += _points([s for s in points if s.trial.values[axis.path] == level], colour, name)
    held = {p: best[p] for p in others if p in best}
    shows = (
        f"{study.metric} against rho, a colour for each {axis.path}: "
        f"{', '.join(str(level) for level in levels)}. The lines are the fit"
        + (f" at {describe(held)}" if held else "")
        + "; where their tops lie apart, the best rho depends on this setting, and where they "
        "cover each other, it makes no difference."
    )
    if unfitted:
        shows += f" No trial of {', '.join(unfitted)} had the other settings so: no line."
    made = figure(traces, x=_rho_axis(used), y=label(study.metric))
    return Plot(made, shows, _thinned_note(len(points), len(used)))


def _map(study: Study, axis: Axis, used: Sequence[Scored], diverged: Sequence[Trial]) -> Plot:
    """Rho across, the setting upwards, the score as colour."""
    points = thinned(used, MOST_POINTS // 2)
    scores = [s.value for s in points]
    is_choice = bool(axis.levels)
    trace = {
        "type": "scatter",
        "mode": "markers",
        "name": "trials",
        "x": [s.trial.config.sam.rho for s in points],
        "y": [_place(s.trial.values[axis.path], is_choice) for s in points],
        "text": [_hover(s) for s in points],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "size": 10,
            "symbol": ["circle" if s.trial.state == "finished" else "diamond" for s in points],
            "color": scores,
            "colorscale": SCALE,
            "reversescale": study.config.mode == "min",
            "colorbar": {"title": {"text": label(study.metric), "side": "right"}, "thickness": 12},
        },
    }
    traces = [trace]
    with_it = thinned([t for t in diverged if axis.path in t.values], MOST_POINTS // 2)
    if with_it:
        ys = [_place(t.values[axis.path], is_choice) for t in with_it]
        traces.append(_diverged(with_it, ys))
    shows = (
        f"rho and {axis.path} of each trial, its {study.metric} as the colour: the brighter, the "
        "better. Round points finished, diamonds were stopped"
        + (", red crosses diverged." if with_it else ".")
    )
    made = figure(traces, x=_rho_axis(used, diverged), y=_scaled(axis), showlegend=bool(with_it))
    return Plot(made, shows, _thinned_note(len(points), len(used)))


def band_traces(
    band: Band, colour: str, name: str, *, is_named: bool = True
) -> list[dict[str, Any]]:
    """The fit as a line, with one standard error around it."""
    ends = list(zip(band.mean, band.standard_error, strict=True))
    upper, lower = [m + e for m, e in ends], [m - e for m, e in ends]
    edge = {"width": 0}
    common = {"type": "scatter", "x": band.rho, "hoverinfo": "skip", "legendgroup": name}
    return [
        {**common, "y": upper, "mode": "lines", "line": edge, "showlegend": False},
        {
            **common,
            "y": lower,
            "mode": "lines",
            "line": edge,
            "fill": "tonexty",
            "fillcolor": faint(colour),
            "showlegend": False,
        },
        {
            **common,
            "y": band.mean,
            "mode": "lines",
            "line": {"color": colour, "width": 2},
            "name": name,
            "showlegend": is_named,
        },
    ]


def _points(used: Sequence[Scored], colour: str, name: str) -> list[dict[str, Any]]:
    """Filled for the finished ones, hollow for the stopped; one entry in the legend."""
    made: list[dict[str, Any]] = []
    for state, symbol in (("finished", "circle"), ("stopped", "circle-open")):
        of_state = [s for s in used if s.trial.state == state]
        if of_state:
            made.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "legendgroup": name,
                    "showlegend": not made,
                    "x": [s.trial.config.sam.rho for s in of_state],
                    "y": [s.value for s in of_state],
                    "text": [_hover(s) for s in of_state],
                    "hovertemplate": "%{text}<extra></extra>",
                    "marker": {"color": colour, "size": 8, "symbol": symbol},
                }
            )
    return made


def _diverged(trials: Sequence[Trial], ys: Sequence[Any]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "diverged",
        "x": [t.config.sam.rho for t in trials],
        "y": list(ys),
        "text": [label(f"{t.key} diverged: {describe(t.values)}") for t in trials],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": "x", "color": RED, "size": 9},
    }


def _plateau(low: float, high: float) -> dict[str, Any]:
    ends = {"x0": low, "x1": high, "y0": 0, "y1": 1, "xref": "x", "yref": "paper"}
    return {
        "type": "rect",
        **ends,
        "fillcolor": GREEN,
        "opacity": 0.14,
        "line": {"width": 0},
        "layer": "below",
    }


def _hover(found: Scored) -> str:
    trial = found.trial
    told = (
        f"{trial.key}: {describe(trial.values)}<br>{trial.state} after {len(trial.epochs)} epochs"
    )
    if trial.state == "stopped" and trial.value is not None:
        told += f" with {metric(trial.value)}; placed at {metric(found.value)}"
    else:
        told += f" with {metric(found.value)}"
    return "<br>".join(label(line) for line in told.split("<br>"))


def _is_at(trial: Trial, band: Band, varied: Sequence[str]) -> bool:
    return all(trial.values.get(p) == band.settings.get(p) for p in varied)


def _scaled(axis: Axis) -> dict[str, Any]:
    title = name_of(axis.path)
    if axis.levels:
        order = [label(level) for level in axis.levels]
        return {
            "title": title,
            "type": "category",
            "categoryorder": "array",
            "categoryarray": order,
        }
    return log_axis(title, axis.bounds) if axis.log and axis.bounds else {"title": title}


def _rho_axis(used: Sequence[Scored], diverged: Sequence[Trial] = ()) -> dict[str, Any]:
    trials = [*(s.trial for s in used), *diverged]
    return log_axis("rho", [t.config.sam.rho for t in trials])


def _place(value: Any, is_choice: bool) -> Any:
    return label(value) if is_choice else value


def _order(value: Any) -> tuple[str, Any]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return ("", value) if is_number else ("text", str(value))


def _has(trial: Trial, x: str, y: str | None) -> bool:
    return not trial.is_baseline and x in trial.values and (y is None or y in trial.values)


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _thinned_note(shown: int, of: int) -> list[str]:
    return [f"Drawn are {shown:,} of {of:,} trials, evenly chosen."] if shown < of else []
