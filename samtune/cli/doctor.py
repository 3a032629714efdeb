"""`samtune doctor`: is everything as it should be?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from samtune.cli.console import new_console, print_json
from samtune.cli.options import AsJson, Plugins, Storage
from samtune.errors import SamtuneError
from samtune.study import DEFAULT_STORAGE


def doctor(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Examine this study.", show_default=False)
    ] = None,
    sam: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Try SAM on this registered model.", show_default=False),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """Look at this machine, or at a study's files, or try on a model that SAM's promises hold."""
    if name is None and sam is None:
        _look_at_the_machine(storage, as_json)
    if name is not None:
        _examine_study(name, storage, as_json)
    if sam is not None:
        _try_sam(sam, plugin or [])


def _look_at_the_machine(storage: Path, as_json: bool) -> None:
    from samtune.cli.machine import look

    marks = {"fine": "[green]fine [/]", "note": "[yellow]note [/]", "wrong": "[red]wrong[/]"}
    found = []
    console = new_console(silent=as_json)
    for check in look(storage):  # each as it comes: some take a second
        found.append(check)
        console.print(marks[check.state], end="  ")
        remedy = f"; {check.remedy}" if check.remedy else ""
        console.print(f"{check.what:12} {check.found}{remedy}", markup=False, soft_wrap=True)
    is_usable = all(check.state != "wrong" for check in found)
    if as_json:
        print_json({"usable": is_usable, "checks": [asdict(check) for check in found]})
    if not is_usable:
        raise typer.Exit(1)


def _examine_study(name: str, storage: Path, as_json: bool) -> None:
    from samtune.study.doctor import examine

    found = examine(storage, name)
    is_whole = all(damage.is_harmless for damage in found)
    if as_json:
        print_json({"study": name, "whole": is_whole, "findings": [asdict(d) for d in found]})
    else:
        console = new_console()
        for damage in found:
            mark = "[yellow]note [/]" if damage.is_harmless else "[red]wrong[/]"
            console.print(mark, end="  ")
            console.print(str(damage), markup=False, soft_wrap=True)
        console.print(f"Study {name} is {'whole' if is_whole else 'damaged'}.")
    if not is_whole:
        raise typer.Exit(1)


def _try_sam(model: str, plugins: list[str]) -> None:
    import samtune.models  # noqa: F401 - importing registers
    from samtune.registry import load_plugins
    from samtune.training.selfcheck import check_model

    load_plugins(plugins, Path.cwd())
    console = new_console()
    try:
        findings = check_model(model)
    except ValueError as error:
        raise SamtuneError(f"{model} cannot be built with its defaults: {error}") from error
    for finding in findings:
        mark = "[green]yes[/]" if finding.holds else "[red]no [/]"
        console.print(f"{mark}  {finding.claim} ({finding.detail})")
    if not all(finding.holds for finding in findings):
        raise SamtuneError(f"SAM does not keep its promises on {model}.")
