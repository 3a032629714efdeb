"""A session in a notebook: the terminal's panel as one output of its cell, drawn anew."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from samtune.cli.panel import LivePanel
from samtune.config.schema import StudyConfig
from samtune.study import Study

PAUSE_S = 1.0


class NotebookPanel(LivePanel):
    """The panel without rich's live display, which draws in notebooks with ipywidgets alone."""

    def __init__(self, config: StudyConfig, before: Study | None, to_run: int) -> None:
        super().__init__(config, before, to_run, Console())

    @contextmanager
    def displayed(self) -> Iterator[NotebookPanel]:
        """Draws while the body runs, and leaves what came of it."""
        from IPython.display import display

        handle = display(self._panel(), display_id=True)  # type: ignore[no-untyped-call]  # IPython has no types
        ended = threading.Event()

        def redraw() -> None:
            while not ended.wait(PAUSE_S):
                handle.update(self._panel())

        drawing = threading.Thread(target=redraw, name="samtune-panel", daemon=True)
        drawing.start()
        try:
            yield self
        finally:
            ended.set()
            drawing.join()
            handle.update(self._end())

    def _end(self) -> Panel:
        """The head and the best, without the trials that ran."""
        parts = [self._head()]
        best = [Text(self._best_line(*self.best), style="bold green")] if self.best else []
        return Panel(Group(*parts, *best), title=f"study {self.config.name}", title_align="left")
