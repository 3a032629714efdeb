"""`samtune logs`: what a trial printed."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from samtune.cli.console import epoch_line
from samtune.cli.options import Storage, StudyName
from samtune.study import DEFAULT_STORAGE, Trial, open_study
from samtune.study.fetching import fetch_own
from samtune.study.journal import Journal
from samtune.working_copy import current, is_copy

POLL_S = 0.3
POLL_BUCKET_S = 5.0  # each look at one is paid for


def logs(
    name: StudyName,
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="A trial's key, such as t0007.")],
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until it ends, with each epoch.")
    ] = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Print what a trial printed, and its traceback if it failed."""
    study = open_study(name, storage)
    found = study.trial(trial)
    printed = _print_from(found, 0)
    if not follow:
        if not printed:
            print(f"{trial} ({found.state}) has printed nothing.", file=sys.stderr)
        return
    epochs = 0
    while True:
        # Asked before reading: what comes in between is printed in another round.
        found.folder.fetch()
        fetch_own(study.folder.root)
        ended, running = found.folder.outcome(), study.folder.is_running
        printed += _print_from(found, printed)
        for entry in Journal(found.folder.journal).epochs()[epochs:]:
            epochs = entry.epoch
            total = found.config.training.epochs
            print(epoch_line(epochs, total, entry.metrics, entry.duration_s), flush=True)
        if ended or not running:
            break
        time.sleep(POLL_BUCKET_S if is_copy(found.folder.root) else POLL_S)
    if ended:
        reason = f": {ended.reason}" if ended.reason else ""
        print(f"{trial} {ended.state} after epoch {ended.epoch}{reason}", file=sys.stderr)
    else:
        print(f"study {name} is not running; {trial} waits for `samtune resume`", file=sys.stderr)


def _print_from(trial: Trial, start: int) -> int:
    """Prints the log from this byte on; returns how many bytes there were."""
    try:
        with open(current(trial.folder.log), "rb") as file:
            file.seek(start)
            content = file.read()
    except FileNotFoundError:
        return 0
    print(content.decode(errors="replace"), end="", flush=True)
    return len(content)
