"""`samtune logs`: what a trial printed."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Annotated

import typer

from samtune.cli.options import Storage, StudyName
from samtune.study import DEFAULT_STORAGE, open_study


def logs(
    name: StudyName,
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="A trial's key, such as t0007.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until it ends.")] = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Print what a trial printed, and its traceback if it failed."""
    found = open_study(name, storage).trial(trial)
    path = found.folder.log
    if not path.exists():
        print(f"{trial} ({found.state}) has printed nothing.", file=sys.stderr)
        return
    with open(path, errors="replace") as file:
        shutil.copyfileobj(file, sys.stdout)
        while follow and found.folder.outcome() is None:
            time.sleep(0.3)
            shutil.copyfileobj(file, sys.stdout)
            sys.stdout.flush()
        shutil.copyfileobj(file, sys.stdout)
    if not path.stat().st_size:
        print(f"{trial} ({found.state}) has printed nothing.", file=sys.stderr)
