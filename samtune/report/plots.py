"""Figures in plotly's JSON: one look, colours that can be told apart in light and dark."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

from samtune.analysis.scores import thinned
from samtune.secrets import without_password
from samtune.words import number

MOST_POINTS = 2000  # of one plot: more are a blot, and a page that is slow on a phone

# Of middle lightness, at least 3 : 1 on white and on the page's dark.
BLUE, ORANGE, GREEN, PURPLE, RED, GREY = (
    "#3b82c4",
    "#d0702c",
    "#2e9e6b",
    "#a667c5",
    "#d64545",
    "#7d8590",
)
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY)
STATE_COLOURS = {
    "finished": BLUE,
    "stopped": GREY,
    "running": GREEN,
    "interrupted": PURPLE,
    "diverged": RED,
    "failed": RED,
    "out_of_memory": RED,
}
FIFTHS = ("#a05fc4", "#5b8bd0", "#2fa39a", "#5cb84f", "#d9a514")  # from worst to best
SCALE = [[i / 4, colour] for i, colour in enumerate(FIFTHS)]


def figure(
    traces: Sequence[dict[str, Any]],
    *,
    x: str | dict[str, Any],
    y: str | dict[str, Any],
    height: int = 420,
    **layout: Any,
) -> str:
    """Plotly's JSON of these traces, checked by plotly and safe inside a page.

    Args:
        x, y: an axis' title, or its settings.
        layout: of plotly.
    """
    import plotly.graph_objects as go

    whole: dict[str, Any] = {
        "template": "none",
        "height": height,
        "margin": {"l": 64, "r": 16, "t": 16, "b": 56},
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "xaxis": {**_axis(x)},
        "yaxis": {**_axis(y)},
        **layout,
    }
    text: str = go.Figure(data=list(traces), layout=whole).to_json()
    # Inside <script> a page ends at the first </script>, whatever the JSON says.
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def log_axis(title: str, values: Sequence[float]) -> dict[str, Any]:
    """An axis of magnitudes for these values, with whole numbers that stay apart on a phone."""
    decades = math.log10(max(values) / min(values))
    digits = (1, 2, 5) if decades < 1.2 else (1, 3) if decades <= 3 else (1,)
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    ticks = [digit * 10.0**power for power in range(first - 1, last + 2) for digit in digits]
    return {
        "title": title,
        "type": "log",
        "tickvals": ticks,
        "ticktext": [f"{tick:.3g}" for tick in ticks],
    }


def label(value: Any) -> str:
    """Text of a study for inside a plot, where plotly would take `<b>` for bold."""
    return html.escape(without_password(number(value)), quote=False)


def name_of(path: str) -> str:
    """How an axis calls a setting: `model.width_factor` is `width_factor`."""
    return label(path.partition(".")[2] or path)


def faint(colour: str) -> str:
    """The same colour, seen through."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def vertical(at: float, *, colour: str = GREY, dash: str = "dot") -> dict[str, Any]:
    """A line through the whole height; on a log axis too, `at` is the value itself."""
    ends = {"x0": at, "x1": at, "y0": 0, "y1": 1, "xref": "x", "yref": "paper"}
    return {"type": "line", **ends, "line": {"color": colour, "dash": dash, "width": 1.5}}


def horizontal(at: float, *, colour: str = ORANGE, dash: str = "dash") -> dict[str, Any]:
    """A line through the whole width."""
    ends = {"x0": 0, "x1": 1, "y0": at, "y1": at, "xref": "paper", "yref": "y"}
    return {"type": "line", **ends, "line": {"color": colour, "dash": dash, "width": 1.5}}


def legend_line(name: str, *, colour: str = ORANGE, dash: str = "dash") -> dict[str, Any]:
    """The legend's entry of a line that is drawn as a shape."""
    line = {"color": colour, "dash": dash, "width": 1.5}
    return {
        "type": "scatter",
        "x": [None],
        "y": [None],
        "mode": "lines",
        "name": name,
        "line": line,
    }


def broken(lines: Iterable[tuple[Sequence[Any], Sequence[Any], str]]) -> dict[str, list[Any]]:
    """Several lines as one trace: x, y and the text of every point, with a gap after each line."""
    joined: dict[str, list[Any]] = {"x": [], "y": [], "text": []}
    for xs, ys, text in lines:
        joined["x"] += [*xs, None]
        joined["y"] += [*ys, None]
        joined["text"] += [text] * len(xs) + [None]
    return joined


def at_most(points: Sequence[Any], first: Sequence[Any], most: int) -> tuple[list[Any], list[str]]:
    """Those that matter most and an even share of the others; and a note if some are left out."""
    if len(points) <= most:
        return list(points), []
    keep = list(first[:most])
    kept = {id(p) for p in keep}
    others = [p for p in points if id(p) not in kept]
    shown = keep + thinned(others, most - len(keep))
    note = (
        f"Drawn are {len(shown):,} of {len(points):,} trials: the best, and an even share of the "
        "others."
    )
    drawn = {id(p) for p in shown}
    return [p for p in points if id(p) in drawn], [note]


def _axis(axis: str | dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {"title": axis} if isinstance(axis, str) else dict(axis)
    settings["title"] = {"text": settings.get("title", ""), "standoff": 8}
    return {"automargin": True, "zeroline": False, **settings}
