"""How numbers, values and tables look."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from samtune.errors import SamtuneError
from samtune.study.damage import Damage


def new_console() -> Console:
    """The terminal, or a pipe, which gets plain unwrapped lines."""
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200, no_color=True)
    return console


@contextmanager
def uncollected() -> Iterator[None]:
    """Looks for no garbage in the body, which reads and prints.

    What it reads stays to the end, and looking through that took longer than reading it.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def print_damage(console: Console, damage: Iterable[Damage]) -> None:
    """A line for each thing that is damaged in a study."""
    for found in damage:
        console.print(f"damaged: {found}", style="yellow", markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2))


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
    last = [path.rpartition(".")[2] for path in values]
    return ", ".join(
        f"{path if last.count(short) > 1 else short} {number(value)}"
        for (path, value), short in zip(values.items(), last, strict=True)
    )


def size(count: float) -> str:
    """Bytes for people."""
    number, unit = _three_digits(count, ("B", "kB", "MB", "GB", "TB"))
    return f"{number} {unit}"


def big(count: float) -> str:
    """A count for people: 36.5M."""
    return "".join(_three_digits(count, ("", "k", "M", "G", "T")))


def _three_digits(count: float, units: Sequence[str]) -> tuple[str, str]:
    for unit in units:
        if count < 999.5 or unit == units[-1]:
            break
        count /= 1000
    return (f"{count:.3g}" if count < 999.5 else f"{count:.0f}"), unit


def epoch_line(epoch: int, epochs: int, metrics: Mapping[str, float], seconds: float) -> str:
    """`epoch 3/20 train_loss 0.4321 val_accuracy 0.9012 (0.31 s)`."""
    shown = {k: v for k, v in metrics.items() if k.startswith(("train_", "val_"))}
    values = " ".join(f"{name} {metric(value)}" for name, value in shown.items())
    return f"epoch {epoch}/{epochs} {values} ({short_duration(seconds)})"


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


def seconds_of(text: str) -> float:
    """A duration option in seconds.

    Raises:
        SamtuneError: it is no duration.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if not found or float(found[1]) <= 0:
        raise SamtuneError(f"{text!r} is no duration: write 30s, 90m, 8h or 2d")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def table(*columns: str, title: str | None = None) -> Table:
    """A plain table; a column that starts with `>` is set to the right."""
    made = Table(box=None, pad_edge=False, title=title, title_justify="left", header_style="bold")
    for column in columns:
        made.add_column(
            column.removeprefix(">"),
            justify="right" if column.startswith(">") else "left",
            overflow="fold",
        )
    return made
