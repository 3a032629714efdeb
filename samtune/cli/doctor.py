"""`samtune doctor`: is everything as it should be?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samtune.cli.console import new_console
from samtune.cli.options import Plugins
from samtune.errors import SamtuneError


def doctor(
    sam: Annotated[
        str,
        typer.Option(metavar="MODEL", help="Try SAM on this registered model.", show_default=False),
    ],
    plugin: Plugins = None,
) -> None:
    """Try on a model that SAM's promises hold: distance, coming home, statistics, rho = 0."""
    import samtune.models  # noqa: F401 - importing registers
    from samtune.registry import load_plugins
    from samtune.training.selfcheck import check_model

    load_plugins(plugin or [], Path.cwd())
    console = new_console()
    try:
        findings = check_model(sam)
    except ValueError as error:
        raise SamtuneError(f"{sam} cannot be built with its defaults: {error}") from error
    for finding in findings:
        mark = "[green]yes[/]" if finding.holds else "[red]no [/]"
        console.print(f"{mark}  {finding.claim} ({finding.detail})")
    if not all(finding.holds for finding in findings):
        raise SamtuneError(f"SAM does not keep its promises on {sam}.")
