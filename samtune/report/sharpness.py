"""How flat the loss is around the best weights, beside the baseline's: table and landscapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from samtune.report.parts import Part, Plot, Section, Subject, Table
from samtune.report.plots import (
    BLUE,
    GREEN,
    GREY,
    MOST_POINTS,
    ORANGE,
    PURPLE,
    RED,
    SCALE,
    figure,
    label,
    log_axis,
)
from samtune.sharpness import Rise, Sharpness, TrialSharpness, outdated, read_sharpness
from samtune.sharpness.result import EXTRA
from samtune.words import big, number

TITLE = "Sharpness"
OTHERS = (BLUE, PURPLE, RED, GREY)
MOST_PLANES = 4
GAP = 0.06  # between them, of the width
DOUBLING = math.log10(2)
DARK = "rgba(20,23,28,0.6)"  # on every colour of the scale, in light and dark
LEAST_SHARE = 1e-6  # of the highest loss: what is lower is drawn so, since 0 has no logarithm
NO_LAW = (
    "Lower says that the loss is flatter there, not that the model is better: SAM on the norm "
    "layers alone generalises better than SAM at sharper minima (arXiv:2306.04226), and these "
    "measures go with the gap between training and test but weakly (arXiv:2302.07011)."
)


def sharpness(subject: Subject) -> Section:
    """What `samtune sharpness` has measured, or how to measure it."""
    study = subject.study
    command = study.folder.command("sharpness")
    found = read_sharpness(study)
    if found is None:
        return Section(
            "sharpness",
            TITLE,
            [
                "Not measured yet. How much the loss rises around the best trial's weights and "
                "around its baseline's, and the landscapes of both, is what "
                f"`{command}` finds out."
            ],
        )
    parts: list[Part] = []
    if stale := outdated(study, found):
        parts.append(f"{' '.join(stale)} `{command}` measures anew.")
    parts += [sentence(found), Table(measured(found), columns(found), rows(found))]
    parts.append(" ".join(notes(found)))
    drawn = [t for t in found.trials if t.landscape]
    if drawn:
        parts += [_line(found, drawn[: len(OTHERS)]), _planes(found, drawn)]
    return Section("sharpness", TITLE, parts)


def measured(found: Sharpness) -> str:
    """On what, and how."""
    return (
        f"Training loss of {found.images} training images of {found.dataset} (seed "
        f"{found.question.seed}), not augmented, in evaluation mode and float32. The rise is the "
        f"mean over batches of {found.batch_size} of the highest of {found.steps} climbs, +- its "
        "standard error; eigenvalues and trace are the Hessian's."
    )


def columns(found: Sharpness) -> list[str]:
    """The headings of `rows`; a number's column starts with `>`."""
    return ["", *(f">{_name(t)}" for t in found.trials)]


def rows(found: Sharpness) -> list[list[str]]:
    """A measure a row, a trial a column."""
    told = [
        ("trained with rho", [_rho(t) for t in found.trials]),
        ("weights", [big(t.parameters) for t in found.trials]),
        ("loss", [f"{t.loss:.4f}" for t in found.trials]),
    ]
    for name, rho, adaptive in _shared(found):
        rises = [t.rise(rho, adaptive=adaptive) for t in found.trials]
        told.append((f"{name} within rho {number(rho)}", [_rise(r) for r in rises]))
        one_step = [_short(r.one_step) if r else "-" for r in rises]
        told.append((f"... by {'ASAM' if adaptive else 'SAM'}'s one step", one_step))
    own = [_own(t, found) for t in found.trials]
    if any(own):
        cells = [f"{_rise(r)} ({number(r.rho)})" if r else "-" for r in own]
        told.append(("rise within its own rho", cells))
    bent = [t.curvature for t in found.trials]
    if any(bent):
        first = [_short(c.eigenvalues[0]) if c else "-" for c in bent]
        told.append(("largest eigenvalue", first))
        if count := min(len(c.eigenvalues) for c in bent if c) - 1:
            ratios = [_ratio(c.eigenvalues, count) if c else "-" for c in bent]
            told.append((f"... over the {_ordinal(count + 1)}", ratios))
        traces = [_with_error(c.trace, c.trace_error) if c else "-" for c in bent]
        told.append(("trace", traces))
    return [[name, *cells] for name, cells in told]


def sentence(found: Sharpness) -> str:
    """The first trial held against the baseline, measure by measure."""
    one, other = _compared(found)
    if one is None or other is None:
        return f"What was measured of {', '.join(t.trial for t in found.trials)}:"
    lower: list[str] = []
    higher: list[str] = []
    for name, ours, theirs in _measures(found, one, other):
        told = f"{name}: {_short(ours)} against {_short(theirs)}"
        (lower if ours < theirs else higher).append(told)
    beside = "the baseline's" if other.is_baseline else f"those of {other.trial}"
    text = f"Around the weights of {one.trial} the loss is "
    if not higher:
        return f"{text}flatter than around {beside} by every measure here ({'; '.join(lower)})."
    if not lower:
        return f"{text}no flatter than around {beside} by any measure here ({'; '.join(higher)})."
    return (
        f"{text}flatter than around {beside} by {len(lower)} of {len(lower) + len(higher)} "
        f"measures ({'; '.join(lower)}), but not by the others ({'; '.join(higher)})."
    )


def notes(found: Sharpness) -> list[str]:
    """What the numbers are good to, and what they leave open."""
    told = []
    if len({t.parameters for t in found.trials}) > 1:
        told.append(
            "The trials differ in their number of weights: a ball of one rho is not the same in "
            "each."
        )
    for trial in found.trials:
        if trial.differs_in:
            told.append(
                f"{trial.trial} differs from {found.trials[0].trial} in "
                f"{', '.join(trial.differs_in)}: its loss is another function."
            )
        if trial.no_curvature and found.question.curvature:
            told.append(f"No Hessian of {trial.trial}: {trial.no_curvature}.")
    if not found.question.curvature:
        told.append(f"The Hessian's eigenvalues and trace need curvlinops: pip install '{EXTRA}'.")
    return [*told, NO_LAW]


def _line(found: Sharpness, trials: Sequence[TrialSharpness]) -> Plot:
    traces, losses = [], []
    least = LEAST_SHARE * _highest(t.landscape.line for t in trials if t.landscape)
    for trial in trials:
        assert trial.landscape is not None
        line = _above(least, trial.landscape.line)
        losses += [value for value in line if value is not None]
        colour, dash = _style(trial, trials)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": label(_name(trial)),
                "x": found.line_at,
                "y": line,
                "line": {"color": colour, "width": 2.5, "dash": dash},
                "hovertemplate": f"{label(trial.trial)} at %{{x:.2f}}: %{{y:.4g}}<extra></extra>",
            }
        )
    shows = (
        "The loss from the weights (0) along one random direction, each filter of which is as long "
        "as the weights' own filter (Li et al. 2018): at 1 every filter has moved by its own "
        "length. Flatter curves rise later; the scale is logarithmic, and the same for all."
    )
    made = figure(traces, x="step along the direction", y=log_axis("loss", losses))
    return Plot(made, shows)


def _planes(found: Sharpness, trials: Sequence[TrialSharpness]) -> Plot:
    at = found.plane_at
    count = min(len(trials), MOST_PLANES, max(1, MOST_POINTS // (len(at) ** 2 + 1)))
    shown = trials[:count]
    found_there = [t.landscape.plane for t in shown if t.landscape]
    least = LEAST_SHARE * _highest(row for rows in found_there for row in rows)
    planes = [
        [[None if v is None else math.log10(v) for v in _above(least, row)] for row in rows]
        for rows in found_there
    ]
    known = [v for plane in planes for row in plane for v in row if v is not None]
    low, high = min(known), max(known)
    traces: list[dict[str, Any]] = []
    for i, plane in enumerate(planes):
        traces += _map(plane, at, _axis(i), (low, high))
    width = (1 - GAP * (count - 1)) / count
    starts = [i * (width + GAP) for i in range(count)]
    axes: dict[str, dict[str, Any]] = {}
    for i, start in enumerate(starts):
        axis = {"tickvals": [-1, 0, 1], "range": [-1, 1]}
        axes[f"xaxis{_axis(i)}"] = axis | {
            "domain": [start, start + width],
            "anchor": f"y{_axis(i)}",
        }
        axes[f"yaxis{_axis(i)}"] = axis | {"anchor": f"x{_axis(i)}", "showticklabels": i == 0}
    heading = {"y": 1.0, "yanchor": "bottom", "xref": "paper", "yref": "paper", "showarrow": False}
    made = figure(
        traces,
        x=axes.pop("xaxis"),
        y=axes.pop("yaxis"),
        height=440,
        coloraxis=_colours(low, high),
        annotations=[
            {"text": label(_name(trial)), "x": start + width / 2, **heading}
            for trial, start in zip(shown, starts, strict=True)
        ],
        margin={"l": 40, "r": 16, "t": 36, "b": 96},
        **axes,
    )
    shows = (
        "The loss over two random directions, normalised in the same way and drawn from the same "
        "seed for each trial; the cross is at the weights. Colours and axes are the same in all, "
        "and from one line to the next the loss doubles."
    )
    left = len(trials) - count
    return Plot(made, shows, [f"The first {count} of {len(trials)} trials are drawn."] * bool(left))


def _map(
    plane: Sequence[Sequence[float | None]],
    at: Sequence[float],
    axis: str,
    ends: tuple[float, float],
) -> list[dict[str, Any]]:
    """The logarithms of one trial's losses as colours and lines, and a cross at its weights."""
    place = {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "showlegend": False}
    low, high = ends
    return [
        {
            "type": "contour",
            **place,
            "x": at,
            "y": at,
            "z": plane,
            "text": [["" if v is None else f"{10**v:.4g}" for v in row] for row in plane],
            "coloraxis": "coloraxis",
            "contours": {"coloring": "heatmap", "start": low, "end": high, "size": DOUBLING},
            "line": {"color": DARK, "width": 0.7},
            "hovertemplate": "loss %{text} at (%{x:.2f}, %{y:.2f})<extra></extra>",
        },
        {
            "type": "scatter",
            **place,
            "mode": "markers",
            "x": [0],
            "y": [0],
            "marker": {"symbol": "cross-thin", "size": 10, "line": {"width": 2, "color": DARK}},
            "hoverinfo": "skip",
        },
    ]


def _colours(low: float, high: float) -> dict[str, Any]:
    """The brighter the lower, from one logarithm of the loss to the other."""
    axis = log_axis("loss", [10**low, 10**high])
    ticks = [
        (math.log10(value), text)
        for value, text in zip(axis["tickvals"], axis["ticktext"], strict=True)
        if low <= math.log10(value) <= high
    ]
    bar = {
        "title": {"text": "loss", "side": "top"},
        "orientation": "h",
        "y": -0.12,
        "yanchor": "top",
        "thickness": 12,
        "tickvals": [value for value, _ in ticks],
        "ticktext": [text for _, text in ticks],
    }
    return {"colorscale": SCALE, "reversescale": True, "cmin": low, "cmax": high, "colorbar": bar}


def _axis(number: int) -> str:
    """What plotly adds to the names of the axes of this plot among several."""
    return str(number + 1) if number else ""


def _compared(found: Sharpness) -> tuple[TrialSharpness | None, TrialSharpness | None]:
    """The first trial that is no baseline, and the baseline or else the next one."""
    others = [t for t in found.trials if not t.is_baseline]
    baseline = next((t for t in found.trials if t.is_baseline), None)
    first = others[0] if others else None
    return first, baseline or (others[1] if len(others) > 1 else None)


def _measures(
    found: Sharpness, one: TrialSharpness, other: TrialSharpness
) -> Iterator[tuple[str, float, float]]:
    """Each measure of both; what is not finite counts as infinite."""
    for name, rho, adaptive in _shared(found):
        ours, theirs = one.rise(rho, adaptive=adaptive), other.rise(rho, adaptive=adaptive)
        if ours and theirs:
            yield f"{name} within rho {number(rho)}", _or_infinite(ours), _or_infinite(theirs)
    if one.curvature and other.curvature:
        yield "largest eigenvalue", one.curvature.eigenvalues[0], other.curvature.eigenvalues[0]
        yield "trace", one.curvature.trace, other.curvature.trace


def _shared(found: Sharpness) -> list[tuple[str, float, bool]]:
    """The rhos at which all trials were measured."""
    plain = [("rise", rho, False) for rho in found.question.rhos]
    return plain + [("ASAM's rise", rho, True) for rho in found.question.adaptive_rhos]


def _own(trial: TrialSharpness, found: Sharpness) -> Rise | None:
    """The rise within a rho at which this trial alone was measured."""
    shared = {(rho, adaptive) for _, rho, adaptive in _shared(found)}
    return next((r for r in trial.rises if (r.rho, r.adaptive) not in shared), None)


def _or_infinite(rise: Rise) -> float:
    return math.inf if rise.several_steps is None else rise.several_steps


def _name(trial: TrialSharpness) -> str:
    return f"{trial.trial} baseline" if trial.is_baseline else trial.trial


def _rho(trial: TrialSharpness) -> str:
    variant = f" ({trial.variant})" if trial.rho and trial.variant != "sam" else ""
    return f"{number(trial.rho)}{variant}"


def _rise(rise: Rise | None) -> str:
    if rise is None:
        return "-"
    return _with_error(rise.several_steps, rise.error)


def _with_error(value: float | None, error: float | None) -> str:
    return _short(value) + (f" +- {error:.2g}" if error is not None else "")


def _short(value: float | None) -> str:
    return "not finite" if value is None or not math.isfinite(value) else f"{value:.3g}"


def _ratio(eigenvalues: Sequence[float], last: int) -> str:
    return f"{eigenvalues[0] / eigenvalues[last]:.2f}" if eigenvalues[last] > 0 else "-"


def _ordinal(count: int) -> str:
    return {2: "second", 3: "third", 4: "fourth", 5: "fifth"}.get(count, f"{count}th")


def _style(trial: TrialSharpness, trials: Sequence[TrialSharpness]) -> tuple[str, str]:
    """Green for the first, dashed orange for the baseline, as in the other plots."""
    others = [t for t in trials if not t.is_baseline]
    if trial.is_baseline:
        return ORANGE, "dash"
    place = others.index(trial)
    return (GREEN if place == 0 else OTHERS[place - 1]), "solid"


def _highest(losses: Iterable[Sequence[float | None]]) -> float:
    return max((v for line in losses for v in line if v is not None), default=1.0)


def _above(least: float, losses: Sequence[float | None]) -> list[float | None]:
    """The same, with nothing at 0 or so near to it that the rest could not be told apart."""
    return [None if v is None else max(v, least) for v in losses]
