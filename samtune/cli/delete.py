"""`samtune delete`: removes studies for good."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from samtune.cli.console import new_console
from samtune.cli.options import ForceUnlock, Storage, StudyNames
from samtune.errors import SamtuneError
from samtune.study import DEFAULT_STORAGE


def delete(
    names: StudyNames,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    mlflow: Annotated[
        bool, typer.Option("--mlflow", help="Delete their runs and models in MLflow, too.")
    ] = False,
    force_unlock: ForceUnlock = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Remove studies with all their files; what MLflow has of them stays, but with --mlflow."""
    from samtune import tracking
    from samtune.study.removal import delete as remove
    from samtune.study.removal import size_of, to_delete
    from samtune.words import size

    names = list(dict.fromkeys(names))
    folders = [to_delete(storage, name, force_unlock=force_unlock) for name in names]
    if not yes:
        if not sys.stdin.isatty():
            raise SamtuneError("delete asks on a terminal, and this is none: add --yes")
        told = ", ".join(f"{f.name} ({size(size_of(f.root))})" for f in folders)
        too = " and what MLflow has of them" if mlflow else ""
        if not typer.confirm(f"Delete {told}{too} for good?"):
            raise typer.Exit(2)
    console = new_console()
    for folder in folders:
        recorded = tracking.is_recorded(folder.root)
        address = tracking.store_of(folder.root).address if recorded else ""
        if mlflow and recorded:
            runs = tracking.delete_records(folder)
            console.print(f"{folder.name}: {runs} runs deleted in MLflow.", markup=False)
        freed = remove(folder, force_unlock=force_unlock)
        console.print(f"{folder.name}: deleted, {size(freed)} freed.", markup=False)
        if recorded and not mlflow:
            line = f"  MLflow at {address} keeps its runs, in experiment {folder.name!r}."
            console.print(line, markup=False, soft_wrap=True)
