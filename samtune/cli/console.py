"""How tables and lines look on a terminal; `samtune.words` has how numbers and values do."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from samtune.errors import SamtuneError
from samtune.study.damage import Damage
from samtune.words import metric, short_duration


def new_console(*, silent: bool = False) -> Console:
    """The terminal, or a pipe, which gets plain unwrapped lines; a silent one says nothing."""
    console = Console(highlight=False, soft_wrap=False, quiet=silent)
    if not console.is_terminal:
        console = Console(highlight=False, width=200, no_color=True, quiet=silent)
    return console


def say(console: Console, sentence: str | Text, style: str | None = None) -> None:
    """Sentences: wrapped at words on a terminal, a line in a pipe."""
    console.print(sentence, style=style, markup=False, soft_wrap=not console.is_terminal)


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


def epoch_line(epoch: int, epochs: int, metrics: Mapping[str, float], seconds: float) -> str:
    """`epoch 3/20 train_loss 0.4321 val_accuracy 0.9012 (0.31 s)`."""
    shown = {k: v for k, v in metrics.items() if k.startswith(("train_", "val_"))}
    values = " ".join(f"{name} {metric(value)}" for name, value in shown.items())
    return f"epoch {epoch}/{epochs} {values} ({short_duration(seconds)})"


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
