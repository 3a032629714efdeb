"""`samtune export`: the best checkpoint, to take home."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from samtune.cli.console import new_console
from samtune.cli.options import Plugins, Storage, StudyName
from samtune.study import DEFAULT_STORAGE
from samtune.words import big


def export(
    name: StudyName,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The file to write; for mlflow a new folder.")
    ],
    trial: Annotated[
        str | None, typer.Option(help="Another trial than the best.", show_default=False)
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="pt, safetensors, onnx, pt2 or mlflow; default is what the file of -o ends in.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    storage: Storage = DEFAULT_STORAGE,
    plugin: Plugins = None,
) -> None:
    """Export a trial's model, normalisation inside; it is reloaded and compared beforehand."""
    from samtune import export as exporting
    from samtune.registry import load_plugins
    from samtune.study import Study, open_folder

    kind = exporting.format_of(output, format)
    folder = open_folder(storage, name)
    folder.check_plugins(plugin or [])
    load_plugins(plugin or [], folder.plugin_folder(plugin or []))
    study = Study(folder, folder.config())
    chosen = study.trial(trial) if trial else None
    done = exporting.export(study, chosen, output, kind.name, overwrite=force)
    console = new_console()
    if done.measured is None:
        found = f"{done.metric} needs more than its scores, recorded {done.recorded!r}."
    elif done.measured == done.recorded:
        found = f"{done.metric} {done.measured!r}, as recorded."
    else:
        found = (
            f"{done.metric} {done.measured!r}, recorded {done.recorded!r} on the trial's own "
            "hardware and in its precision."
        )
    classes = f"classes {', '.join(done.classes)}" if done.classes else "classes without names"
    lines = [
        f"{done.path}: {done.trial}, epoch {done.epoch}, {big(done.parameters)} parameters; "
        f"reloaded, outputs within {done.difference:.1g} of the trial's model's, {found}",
        f"takes:  images of {done.input}, pixels from 0 to 1, not normalised; {classes}",
        f"load:   {kind.load.format(path=output)}",
        f"try:    samtune evaluate {shlex.quote(str(output))}; "
        f"samtune predict {shlex.quote(str(output))} IMAGE",
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
