"""`samtune report` and `samtune plot`: a study to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samtune.cli.console import new_console
from samtune.cli.options import Storage, StudyName
from samtune.errors import SamtuneError
from samtune.study import DEFAULT_STORAGE, open_study
from samtune.working_copy import address, is_copy


def report(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="The study; several compare.", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The file to write; default is report.html in the study's folder.",
            show_default=False,
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Write a study as one HTML page with its plots; it needs no network and no samtune."""
    from samtune.report.compare import write_comparison
    from samtune.report.page import write_report
    from samtune.words import size

    studies = [open_study(name, storage) for name in dict.fromkeys(names)]
    path = (
        write_report(studies[0], output) if len(studies) == 1 else write_comparison(studies, output)
    )
    new_console().print(
        f"{address(path)}: {size(path.stat().st_size)}, everything in it",
        markup=False,
        soft_wrap=True,
    )
    if open_page and is_copy(path):
        raise SamtuneError(f"{address(path)} lies in a bucket: name a file with -o to open it")
    if open_page:
        typer.launch(path.absolute().as_uri())


def plot(
    name: StudyName,
    setting: Annotated[
        str, typer.Argument(help="A searched setting: rho, or sam.rho.")
    ] = "sam.rho",
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Draw the score against a searched setting, here in the terminal."""
    from samtune.report.terminal import plot_lines, setting_of

    study = open_study(name, storage)
    console = new_console()
    for line in plot_lines(study, setting_of(study, setting)):
        console.print(line, markup=False, soft_wrap=True)
