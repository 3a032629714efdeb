"""What a running study looks like: a panel in place on a terminal, one line an event in a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleDimensions, Group
from rich.control import Control
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from samtune.cli.console import describe, duration, epoch_line, metric, table
from samtune.config.schema import BEST, StudyConfig
from samtune.study import Study
from samtune.study.trial_folder import BASELINE_KEY, Outcome

STOPPING = "stopping after the current epoch of each trial; Ctrl-C again ends at once"


class Display:
    """A `Listener` that draws.

    Args:
        before: the study as earlier sessions left it; None for a new one.
        to_run: how many trials this session runs.
    """

    def __init__(
        self, config: StudyConfig, console: Console, before: Study | None, to_run: int
    ) -> None:
        self.config = config
        self.console = console
        self.to_run = to_run
        self.started = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.values: dict[str, dict[str, Any]] = {}
        self.running: dict[str, tuple[int, float | None]] = {}
        self.best: tuple[str, float] | None = None
        self.stopping = False
        ended = [t for t in before.trials if t.outcome is not None] if before else []
        self.total = len(ended) + before.left if before else to_run
        for trial in ended:
            self.values[trial.key] = trial.values
            if trial.can_win:
                self._note(trial.key, trial.value)
        # A terminal of unknown size cannot be drawn on in place.
        self._size = _terminal_size(console) if console.is_terminal else None
        self._in_place = self._size is not None

    @contextmanager
    def shown(self) -> Iterator[Display]:
        """Draws while the body runs."""
        if not self._in_place:
            yield self
            return
        with Live(
            get_renderable=self._panel,
            console=self.console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            yield self

    def on_start(self, key: str, values: dict[str, Any], epochs_done: int) -> None:
        """A trial begins, or goes on."""
        self.values[key] = values
        self.running[key] = (epochs_done, None)
        again = f", goes on after epoch {epochs_done}" if epochs_done else ""
        self._line(f"{self._name(key)} starts: {describe(values)}{again}")

    def on_epoch(self, key: str, epoch: int, metrics: dict[str, float], duration_s: float) -> None:
        """An epoch is safe on the disk."""
        value = metrics[self.config.study.metric]
        self.running[key] = (epoch, value)
        if self.config.study.select == "best":
            self._note(key, value)
        epochs = self._epochs(key)
        self._line(f"{self._name(key)} {epoch_line(epoch, epochs, metrics, duration_s)}")

    def on_end(self, key: str, outcome: Outcome, value: float | None) -> None:
        """A trial ended."""
        self.running.pop(key, None)
        self.counts[outcome.state] += 1
        if outcome.state == "finished" or self.config.study.select == "best":
            self._note(key, value)
        reason = f": {outcome.reason}" if outcome.reason else ""
        text = f"{self._name(key)} {outcome.state} after epoch {outcome.epoch}{reason}"
        if outcome.state in ("failed", "out_of_memory", "diverged"):
            self._say(text, "yellow" if outcome.state == "diverged" else "red")
        else:
            self._line(text)

    def on_retry(self, key: str, reason: str) -> None:
        """A worker was lost."""
        self._say(f"{self._name(key)} lost its worker and goes on in another: {reason}", "yellow")

    def on_wait(self, key: str, reason: str) -> None:
        """The storage failed."""
        self._say(f"{self._name(key)} waits for the storage: {reason}", "yellow")

    def on_set_aside(self, key: str, reason: str) -> None:
        """The storage failed for too long."""
        self.running.pop(key, None)
        self._say(f"{self._name(key)} is left to the next session: {reason}", "red")

    def on_interrupt(self) -> None:
        """A signal came; it is acknowledged at once, although the epochs take their time."""
        self.stopping = True
        if not self._in_place:
            # Not `print`, which the signal may have interrupted; the panel's own thread draws it.
            # A closed terminal takes no words, and the session must end cleanly all the same.
            with contextlib.suppress(OSError):
                os.write(sys.stderr.fileno(), f"{STOPPING}\n".encode())

    def _note(self, key: str, value: float | None) -> None:
        if value is None:
            return
        if self.best is None or BEST[self.config.mode](self.best[1], value) != self.best[1]:
            self.best = key, value

    def _line(self, text: str) -> None:
        """An event that the panel shows anyhow."""
        if not self._in_place:
            print(text, flush=True)

    def _say(self, text: str, style: str) -> None:
        """An event that should stay on the screen."""
        if self._in_place:
            self.console.print(text, style=style, markup=False)
        else:
            print(text, flush=True)

    def _epochs(self, key: str) -> Any:
        """How many the trial has; the baselines of a confirmation may have more than others."""
        return self.values[key].get("training.epochs", self.config.trial.training.epochs)

    def _name(self, key: str) -> str:
        return f"{key} (baseline)" if key == BASELINE_KEY else key

    def _follow_size(self) -> None:
        """Begins on a cleared screen where lines of another width would wrap and stay behind."""
        size = _terminal_size(self.console)
        if size is None:
            return  # lost for a moment: the last one known is the best there is
        if size != self._size:
            self.console.control(Control.clear(), Control.home())
        self._size = self.console.size = size

    def _panel(self) -> Panel:
        self._follow_size()
        done = sum(self.counts.values())
        before = self.total - self.to_run
        elapsed = time.monotonic() - self.started
        head = Table.grid(padding=(0, 2))
        counts = ", ".join(f"{n} {state}" for state, n in dict(self.counts).items()) or "starting"
        counts += f", {before} before" if before else ""
        eta = elapsed / done * (self.to_run - done) if done >= 3 else None
        head.add_row(
            ProgressBar(total=max(1, self.total), completed=before + done, width=30),
            f"{before + done}/{self.total} trials",
            counts,
            f"{duration(elapsed)}" + (f", about {duration(eta)} left" if eta is not None else ""),
        )
        parts: list[Any] = [head]
        if self.stopping:
            parts.append(Text(STOPPING, style="bold yellow"))
        if self.best:
            key, value = self.best
            values = describe(self.values.get(key, {}))
            line = f"best {self.config.study.metric} {metric(value)}  {self._name(key)}  {values}"
            parts.append(Text(line, style="bold green"))
        rows = table("running", ">epoch", f">{self.config.study.metric}", "values")
        for key, (epoch, latest) in list(self.running.items())[:16]:
            rows.add_row(
                self._name(key),
                f"{epoch}/{self._epochs(key)}",
                metric(latest),
                describe(self.values[key]),
            )
        parts.append(rows)
        return Panel(Group(*parts), title=f"study {self.config.name}", title_align="left")


def _terminal_size(console: Console) -> ConsoleDimensions | None:
    """What the terminal itself says; None where it does not know."""
    try:
        columns, rows = os.get_terminal_size(console.file.fileno())
    except (OSError, ValueError):
        return None
    return ConsoleDimensions(columns, rows) if columns and rows else None
