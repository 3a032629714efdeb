"""A session on a terminal: a panel that is drawn in place."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleDimensions, Group
from rich.control import Control
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from samtune.cli.console import table
from samtune.cli.progress import STOPPING, Progress
from samtune.config.schema import StudyConfig
from samtune.study import Study
from samtune.study.trial_folder import Outcome
from samtune.words import describe, duration, metric

MOST_SHOWN = 16
SPARK = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 10


class LivePanel(Progress):
    """Draws the counts, the best so far, and the trials at work with their curves."""

    def __init__(
        self, config: StudyConfig, before: Study | None, to_run: int, console: Console
    ) -> None:
        super().__init__(config, before, to_run)
        self.console = console
        self._size = terminal_size(console)
        self._rungs = config.study.scheduler.rung_epochs(config.trial.training.epochs)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draws while the body runs."""
        with Live(
            get_renderable=self._panel,
            console=self.console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            yield

    def on_end(self, key: str, outcome: Outcome, value: float | None) -> None:
        """A trial ended; what went wrong with it stays on the screen."""
        super().on_end(key, outcome, value)
        if outcome.state in ("failed", "out_of_memory", "diverged"):
            reason = f": {outcome.reason}" if outcome.reason else ""
            text = f"{self.name(key)} {outcome.state} after epoch {outcome.epoch}{reason}"
            self._say(text, "yellow" if outcome.state == "diverged" else "red")

    def on_retry(self, key: str, reason: str) -> None:
        """A worker was lost."""
        self._say(f"{self.name(key)} lost its worker and goes on in another: {reason}", "yellow")

    def on_cluster(self, sentence: str) -> None:
        """A node is left out, or none is there."""
        self._say(sentence, "yellow")

    def on_wait(self, key: str, reason: str) -> None:
        """The storage failed."""
        self._say(f"{self.name(key)} waits for the storage: {reason}", "yellow")

    def on_set_aside(self, key: str, reason: str) -> None:
        """The storage failed for too long."""
        super().on_set_aside(key, reason)
        self._say(f"{self.name(key)} is left to the next session: {reason}", "red")

    def _acknowledge(self) -> None:
        """The panel's own thread draws that a signal came."""

    def _say(self, text: str, style: str) -> None:
        self.console.print(text, style=style, markup=False)

    def _follow_size(self) -> None:
        """Begins on a cleared screen where lines of another width would wrap and stay behind."""
        size = terminal_size(self.console)
        if size is None:
            return  # lost for a moment: the last one known is the best there is
        if size != self._size:
            self.console.control(Control.clear(), Control.home())
        self._size = self.console.size = size

    def _panel(self) -> Panel:
        self._follow_size()
        parts: list[Any] = [self._head()]
        if self.stopping:
            parts.append(Text(STOPPING, style="bold yellow"))
        if self.best:
            parts.append(Text(self._best_line(*self.best), style="bold green"))
        parts.append(self._trials())
        return Panel(Group(*parts), title=f"study {self.config.name}", title_align="left")

    def _head(self) -> Group:
        elapsed = duration(time.monotonic() - self.started)
        left = self.left_s
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=max(1, self.total), completed=self.done, width=30),
            f"{self.done}/{self.total} trials",
            elapsed + (f", about {duration(left)} left" if left is not None else ""),
        )
        before = self.total - self.to_run
        ended = ", ".join(f"{n} {state}" for state, n in self.counts.items())
        counts = ended or ("none ended yet" if self.running else "starting")
        counts += f", {before} before" if before else ""
        return Group(bar, Text(f"{counts}; {duration(self.trained_s)} of training"))

    def _best_line(self, key: str, value: float) -> str:
        alone = f"{self.config.trial.optimizer.name} alone"
        gain = "" if self.gain is None else f" ({self.gain:+.4f} over {alone})"
        values = describe(self.values.get(key, {}))
        return f"best {self.config.study.metric} {metric(value)}{gain}  {self.name(key)}  {values}"

    def _trials(self) -> Table:
        rows = table(
            "running", ">epoch", ">rung", f">{self.config.study.metric}", "curve", "values"
        )
        for key, trial in list(self.running.items())[:MOST_SHOWN]:
            rung = next((r for r in self._rungs if r > trial.epochs), None)
            rows.add_row(
                self.name(key),
                f"{trial.epochs}/{self.epochs_of(key)}",
                "-" if rung is None else str(rung),
                metric(trial.curve[-1] if trial.curve else None),
                sparkline(trial.curve),
                describe(self.values[key]),
            )
        if len(self.running) > MOST_SHOWN:
            rows.add_row(f"and {len(self.running) - MOST_SHOWN} more")
        return rows


def sparkline(curve: Sequence[float]) -> str:
    """The latest values as bars, from the smallest to the largest of them."""
    latest = curve[-SPARK_WIDTH:]
    low, high = min(latest, default=0.0), max(latest, default=0.0)
    if high == low:
        return SPARK[0] * len(latest)
    return "".join(SPARK[round((x - low) / (high - low) * (len(SPARK) - 1))] for x in latest)


def terminal_size(console: Console) -> ConsoleDimensions | None:
    """What the terminal itself says; None where it does not know, or is none."""
    if not console.is_terminal:
        return None
    try:
        columns, rows = os.get_terminal_size(console.file.fileno())
    except (OSError, ValueError):
        return None
    return ConsoleDimensions(columns, rows) if columns and rows else None
