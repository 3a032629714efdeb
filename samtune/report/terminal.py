"""The score against one setting, drawn with characters: for a terminal, a pipe or a log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from samtune.analysis import answer
from samtune.analysis.axes import Axis, axes_of, place
from samtune.analysis.response import RHO, is_comparable
from samtune.analysis.scores import Scored, scored
from samtune.errors import SamtuneError, did_you_mean
from samtune.study import Study, Trial
from samtune.words import number

WIDTH, HEIGHT = 68, 18  # of the field; with the score's numbers beside it, less than 80
MOST_LEVELS = 8
FINISHED, STOPPED, DIVERGED, BASELINE, FIT, PLATEAU = "●○x┄·━"


def setting_of(study: Study, name: str) -> Axis:
    """The searched setting that a path, or its last part, names.

    Raises:
        SamtuneError: there is none, or several.
    """
    axes = {axis.path: axis for axis in axes_of(study.config)}
    if name in axes:
        return axes[name]
    found = [axis for path, axis in axes.items() if path.rpartition(".")[2] == name]
    if len(found) > 1:
        several = " and ".join(axis.path for axis in found)
        raise SamtuneError(f"{name} may be {several}: give the whole path")
    if not found:
        raise SamtuneError(
            f"{study.name} has not searched {name!r}.{did_you_mean(name, axes)} "
            f"It searched {', '.join(axes) or 'nothing'}."
        )
    return found[0]


def plot_lines(study: Study, axis: Axis) -> list[str]:
    """The plot's lines, each of at most 80 characters, and below them what they come to.

    Raises:
        SamtuneError: no trial has a score.
    """
    best = next((t for t in study.ranking if not t.is_baseline), None)
    is_rho = axis.path == RHO
    used = [
        s
        for s in scored(study)
        if axis.path in s.trial.values and (not is_rho or is_comparable(s.trial, best))
    ]
    if not used:
        raise SamtuneError(f"no trial of {study.name} with {axis.path} has a score yet")
    if axis.levels and len(axis.levels) > MOST_LEVELS:
        raise SamtuneError(
            f"{axis.path} has {len(axis.levels)} choices, too many for a plot in the terminal: "
            f"see `{study.folder.command('report')}`"
        )
    found = answer(study).response if is_rho else None
    baseline = study.baseline.value if study.baseline else None
    values = [s.value for s in used] + ([baseline] if baseline is not None else [])
    field = _Field(min(values), max(values))
    if baseline is not None:
        for column in range(WIDTH):
            field.put(column, baseline, BASELINE)
    if found and found.band:
        for rho, mean in zip(found.band.rho, found.band.mean, strict=True):
            field.put(_column(axis, rho), mean, FIT)
    for state, mark in (("stopped", STOPPED), ("finished", FINISHED)):
        for one in used:
            if one.trial.state == state:
                field.put(_column(axis, one.trial.values[axis.path]), one.value, mark)
    lost = [t for t in study.trials if t.state == "diverged" and axis.path in t.values]
    for trial in lost:
        field.put(_column(axis, trial.values[axis.path]), field.low, DIVERGED)
    plateau = found.band.plateau if found and found.band and found.rho is not None else None
    legend = _legend(used, lost, baseline is not None, bool(found and found.band), bool(plateau))
    lines = [f"{study.metric} against {axis.path}", legend, "", *field.lines()]
    lines += _axis_lines(axis, plateau)
    if found:
        lines += ["", found.sentence]
    return lines


class _Field:
    """A rectangle of characters; what is put later covers what was there."""

    def __init__(self, low: float, high: float) -> None:
        margin = 0.02 * (high - low) or 0.01
        self.low, self.high = low - margin, high + margin
        self._cells = [[" "] * WIDTH for _ in range(HEIGHT)]

    def put(self, column: int, value: float, mark: str) -> None:
        at = (self.high - value) / (self.high - self.low)
        if 0 <= at <= 1:
            self._cells[min(HEIGHT - 1, int(at * HEIGHT))][column] = mark

    def lines(self) -> list[str]:
        labels = {0: self.high, HEIGHT // 2: (self.high + self.low) / 2, HEIGHT - 1: self.low}
        return [
            f"{f'{labels[row]:.4g}' if row in labels else '':>8} │{''.join(cells)}".rstrip()
            for row, cells in enumerate(self._cells)
        ]


def _column(axis: Axis, value: Any) -> int:
    if axis.bounds is None:
        return (2 * axis.levels.index(value) + 1) * WIDTH // (2 * len(axis.levels))
    return min(WIDTH - 1, max(0, round(place(value, *axis.bounds, log=axis.log) * (WIDTH - 1))))


def _axis_lines(axis: Axis, plateau: tuple[float, float] | None) -> list[str]:
    """The line below the field, with the plateau in it, and the numbers below that."""
    rule = ["─"] * WIDTH
    if plateau:
        for column in range(_column(axis, plateau[0]), _column(axis, plateau[1]) + 1):
            rule[column] = PLATEAU
    numbers = [" "] * WIDTH
    for value in _ticks(axis):
        text, at = number(value), _column(axis, value)
        room = WIDTH // len(axis.levels) - 1 if axis.levels else WIDTH
        text = text[:room]
        start = max(0, min(WIDTH - len(text), at - len(text) // 2))
        numbers[start : start + len(text)] = text
    return [f"{'':>8} └{''.join(rule)}", f"{'':>10}{''.join(numbers)}".rstrip()]


def _ticks(axis: Axis) -> Sequence[Any]:
    if axis.bounds is None:
        return axis.levels
    low, high = axis.bounds
    middle = (low * high) ** 0.5 if axis.log else (low + high) / 2
    return [float(low), float(f"{middle:.2g}"), float(high)]


def _legend(
    used: Sequence[Scored], lost: Sequence[Trial], baseline: bool, fit: bool, plateau: bool
) -> str:
    marks = []
    for state, mark in (("finished", FINISHED), ("stopped", STOPPED)):
        if any(s.trial.state == state for s in used):
            marks.append(f"{mark} {state}")
    marks += [f"{DIVERGED} diverged"] if lost else []
    marks += [f"{BASELINE} baseline"] if baseline else []
    marks += [f"{FIT} fit"] if fit else []
    marks += [f"{PLATEAU} plateau"] if plateau else []
    return "  ".join(marks)
