"""How numbers and settings look wherever people read them: terminal, page, tracker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def number(value: Any) -> str:
    """Four significant digits, as short as they come."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:.4g}"


def metric(value: float | None) -> str:
    """A metric with four decimals; a dash where there is none."""
    return "-" if value is None else f"{value:.4f}"


def describe(values: Mapping[str, Any]) -> str:
    """Sampled values in one line: `rho 0.47, width_factor 2`."""
    names = short_names(values)
    return ", ".join(f"{names[path]} {number(value)}" for path, value in values.items())


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Paths by their last part, where that tells them apart: `rho` for `sam.rho`."""
    paths = list(paths)
    last = [path.rpartition(".")[2] for path in paths]
    return {
        path: short if last.count(short) == 1 else path
        for path, short in zip(paths, last, strict=True)
    }


def count(number: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few, and how many there are more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def size(count: float) -> str:
    """Bytes for people."""
    number, unit = _three_digits(count, ("B", "kB", "MB", "GB", "TB"))
    return f"{number} {unit}"


def big(count: float) -> str:
    """A count for people: 36.5M."""
    return "".join(_three_digits(count, ("", "k", "M", "G", "T")))


def short_duration(seconds: float) -> str:
    """As `duration`, but with two digits below ten seconds: `0.31 s`."""
    return f"{seconds:.2g} s" if seconds < 9.95 else duration(seconds)


def duration(seconds: float) -> str:
    """A duration for people: `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _three_digits(count: float, units: Sequence[str]) -> tuple[str, str]:
    for unit in units:
        if count < 999.5 or unit == units[-1]:
            break
        count /= 1000
    return (f"{count:.3g}" if count < 999.5 else f"{count:.0f}"), unit
