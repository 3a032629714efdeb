"""The score against rho as a small picture, for where no script runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from xml.sax.saxutils import escape

from samtune.analysis import Band, Response
from samtune.analysis.response import is_comparable
from samtune.study.study import Study, Trial

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 36, 44
BLUE, GREY, GREEN = "#1f6fb2", "#666666", "#2e8b57"
Place = Callable[[float], float]


def score_against_rho(study: Study, found: Response) -> str:
    """An SVG: each trial, stopped ones hollow, the fit with its band and plateau, the baseline.

    Empty where fewer than two trials have a rho and a score.
    """
    best = next((t for t in study.ranking if not t.is_baseline), None)
    shown = [t for t in study.trials if t.value is not None and is_comparable(t, best)]
    rhos = [trial.config.sam.rho for trial in shown]
    if len(set(rhos)) < 2:
        return ""
    baseline = study.baseline.value if study.baseline else None
    scores = [t.value for t in shown if t.value is not None]
    scores += [] if baseline is None else [baseline]
    x = _scale(math.log(min(rhos)), math.log(max(rhos)), LEFT, WIDTH - RIGHT)
    low, high = min(scores), max(scores)
    y = _scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 20, f"{study.name}: {found.metric} against rho", "start", 14),
        *_axes(x, y, min(rhos), max(rhos), low, high),
        *(_band(found.band, x, y) if found.band else ()),
        *(_baseline(baseline, y) if baseline is not None else ()),
        *(_trial(trial, x, y) for trial in shown),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _scale(low: float, high: float, start: float, end: float) -> Place:
    """Where a value stands, with a little room at both ends."""
    spread = (high - low) or 1.0
    return lambda value: start + (end - start) * (0.04 + 0.92 * (value - low) / spread)


def _axes(x: Place, y: Place, least: float, most: float, low: float, high: float) -> Iterator[str]:
    bottom = HEIGHT - BOTTOM
    for value in _round_numbers(low, high):
        at = f"{y(value):.1f}"
        yield f'<path d="M{LEFT} {at}H{WIDTH - RIGHT}" stroke="#dddddd"/>'
        yield _text(LEFT - 6, y(value) + 4, f"{value:.6g}", "end")
    for rho in _of_each_decade(least, most):
        at = f"{x(math.log(rho)):.1f}"
        yield f'<path d="M{at} {TOP}V{bottom}" stroke="#eeeeee"/>'
        yield _text(x(math.log(rho)), bottom + 16, f"{rho:.6g}", "middle")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "rho", "middle")


def _band(band: Band, x: Place, y: Place) -> Iterator[str]:
    at = [x(math.log(rho)) for rho in band.rho]
    start, end = (x(math.log(rho)) for rho in band.plateau)
    fit = list(zip(band.mean, band.standard_error, strict=True))
    upper = zip(at, (_within(y(mean + error)) for mean, error in fit), strict=True)
    lower = zip(at, (_within(y(mean - error)) for mean, error in fit), strict=True)
    line = zip(at, (_within(y(mean)) for mean, _ in fit), strict=True)
    yield (
        f'<rect x="{start:.1f}" y="{TOP}" width="{end - start:.1f}" '
        f'height="{HEIGHT - BOTTOM - TOP}" fill="{GREEN}" opacity="0.12"/>'
    )
    outline = _points([*upper, *reversed([*lower])])
    yield f'<polygon points="{outline}" fill="{BLUE}" opacity="0.15"/>'
    yield f'<polyline points="{_points([*line])}" fill="none" stroke="{BLUE}" stroke-width="2"/>'


def _baseline(value: float, y: Place) -> Iterator[str]:
    at = f"{y(value):.1f}"
    yield f'<path d="M{LEFT} {at}H{WIDTH - RIGHT}" stroke="{GREY}" stroke-dasharray="6 4"/>'
    yield _text(WIDTH - RIGHT, y(value) - 5, "baseline", "end")


def _trial(trial: Trial, x: Place, y: Place) -> str:
    assert trial.value is not None
    across, down = x(math.log(trial.config.sam.rho)), y(trial.value)
    fill = "white" if trial.state == "stopped" else BLUE
    said = escape(f"{trial.key}: rho {trial.config.sam.rho:.3g}, {trial.value:.4f}, {trial.state}")
    return (
        f'<circle cx="{across:.1f}" cy="{down:.1f}" r="4" fill="{fill}" stroke="{BLUE}">'
        f"<title>{said}</title></circle>"
    )


def _round_numbers(low: float, high: float) -> list[float]:
    """Three to seven round numbers from `low` to `high`."""
    spread = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(spread / 3))
    step = next(power * n for n in (1, 2, 5, 10) if spread / (power * n) <= 6)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [n * step for n in range(first, last + 1)]


def _of_each_decade(least: float, most: float) -> list[float]:
    decades = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    marks = [n * 10.0**power for power in decades for n in (1, 2, 5)]
    return [mark for mark in marks if least * 0.999 <= mark <= most * 1.001]


def _within(at: float) -> float:
    return min(max(at, TOP), HEIGHT - BOTTOM)


def _points(pairs: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{across:.1f},{down:.1f}" for across, down in pairs)


def _text(x: float, y: float, text: str, anchor: str, size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="#333333">{escape(text)}</text>'
    )
