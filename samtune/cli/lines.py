"""A session in a pipe: a line for each event that matters, or all of them for programs."""

from __future__ import annotations

import json
import time
from typing import Any

from samtune.cli.console import epoch_line
from samtune.cli.progress import Progress
from samtune.config.schema import StudyConfig
from samtune.study import Study
from samtune.study.trial_folder import Outcome
from samtune.words import describe, metric

LONGEST_SILENCE_S = 600.0


class Lines(Progress):
    """Prints how each trial ended, and what went wrong; after ten quiet minutes, where it stands.

    Args:
        verbose: each start and epoch as well.
    """

    def __init__(
        self, config: StudyConfig, before: Study | None, to_run: int, *, verbose: bool
    ) -> None:
        super().__init__(config, before, to_run)
        self.verbose = verbose
        self._said_at = time.monotonic()

    def on_start(self, key: str, values: dict[str, Any], epochs_done: int) -> None:
        """A trial begins, or goes on."""
        super().on_start(key, values, epochs_done)
        if self.verbose or epochs_done:
            again = f", goes on after epoch {epochs_done}" if epochs_done else ""
            self._print(f"{self.name(key)} starts: {describe(values)}{again}")

    def on_epoch(self, key: str, epoch: int, metrics: dict[str, float], duration_s: float) -> None:
        """An epoch is safe on the disk."""
        super().on_epoch(key, epoch, metrics, duration_s)
        silent = time.monotonic() - self._said_at > LONGEST_SILENCE_S
        if self.verbose or silent:
            line = epoch_line(epoch, self.epochs_of(key), metrics, duration_s)
            counted = f"{self.done}/{self.total} trials done, " if silent else ""
            self._print(f"{counted}{self.name(key)} {line}")

    def on_end(self, key: str, outcome: Outcome, value: float | None) -> None:
        """A trial ended."""
        super().on_end(key, outcome, value)
        line = f"[{self.done}/{self.total}] {self.name(key)} {outcome.state}"
        line += f" after epoch {outcome.epoch}"
        line += f": {outcome.reason}" if outcome.reason else ""
        if value is not None:
            line += f", {self.config.study.metric} {metric(value)}"
        line += f"; {describe(self.values[key])}" if self.values.get(key) else ""
        self._print(line + ("; the best so far" if self.is_best(key) else ""))

    def on_retry(self, key: str, reason: str) -> None:
        """A worker was lost."""
        self._print(f"{self.name(key)} lost its worker and goes on in another: {reason}")

    def on_cluster(self, sentence: str) -> None:
        """A node is left out, or none is there."""
        self._print(sentence)

    def on_wait(self, key: str, reason: str) -> None:
        """The storage failed."""
        self._print(f"{self.name(key)} waits for the storage: {reason}")

    def on_set_aside(self, key: str, reason: str) -> None:
        """The storage failed for too long."""
        super().on_set_aside(key, reason)
        self._print(f"{self.name(key)} is left to the next session: {reason}")

    def _print(self, line: str) -> None:
        print(line, flush=True)
        self._said_at = time.monotonic()


class Events(Progress):
    """Prints every event as a JSON object in a line."""

    def on_start(self, key: str, values: dict[str, Any], epochs_done: int) -> None:
        """A trial begins, or goes on."""
        super().on_start(key, values, epochs_done)
        print_event("start", trial=key, values=values, epochs_done=epochs_done)

    def on_epoch(self, key: str, epoch: int, metrics: dict[str, float], duration_s: float) -> None:
        """An epoch is safe on the disk."""
        super().on_epoch(key, epoch, metrics, duration_s)
        print_event("epoch", trial=key, epoch=epoch, metrics=metrics, duration_s=duration_s)

    def on_end(self, key: str, outcome: Outcome, value: float | None) -> None:
        """A trial ended."""
        super().on_end(key, outcome, value)
        print_event(
            "end",
            trial=key,
            state=outcome.state,
            epoch=outcome.epoch,
            reason=outcome.reason,
            score=value,
            best=self.is_best(key),
        )

    def on_retry(self, key: str, reason: str) -> None:
        """A worker was lost."""
        print_event("worker_lost", trial=key, reason=reason)

    def on_cluster(self, sentence: str) -> None:
        """A node is left out, or none is there."""
        print_event("cluster", text=sentence)

    def on_wait(self, key: str, reason: str) -> None:
        """The storage failed."""
        print_event("storage_wait", trial=key, reason=reason)

    def on_set_aside(self, key: str, reason: str) -> None:
        """The storage failed for too long."""
        super().on_set_aside(key, reason)
        print_event("set_aside", trial=key, reason=reason)


def print_event(event: str, **fields: Any) -> None:
    """One JSON object, in a line."""
    print(json.dumps({"event": event, **fields}), flush=True)
