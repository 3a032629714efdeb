"""`samtune export`: the best checkpoint, to take home."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samtune.cli.console import new_console
from samtune.cli.options import Plugins, Storage, StudyName
from samtune.study import DEFAULT_STORAGE
from samtune.words import big


def export(
    name: StudyName,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    trial: Annotated[
        str | None, typer.Option(help="Another trial than the best.", show_default=False)
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="pt or safetensors; default is what the file of -o ends in.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    storage: Storage = DEFAULT_STORAGE,
    plugin: Plugins = None,
) -> None:
    """Export a trial's weights; the file is reloaded and measured before this says done."""
    from samtune import export as exporting
    from samtune.registry import load_plugins
    from samtune.study import Study, StudyFolder

    kind = exporting.format_of(output, format)
    folder = StudyFolder.open(storage, name)
    folder.check_plugins(plugin or [])
    load_plugins(plugin or [], folder.plugin_folder(plugin or []))
    study = Study(folder, folder.config())
    chosen = study.trial(trial) if trial else None
    done = exporting.export(study, chosen, output, kind, overwrite=force)
    console = new_console()
    console.print(
        f"{done.path}: {done.trial}, epoch {done.epoch}, {big(done.parameters)} parameters; "
        f"reloaded, {done.metric} {done.measured!r}, "
        + ("as recorded." if done.measured == done.recorded else f"recorded {done.recorded!r}.")
    )
    if kind == "pt":
        console.print(f'load:  torch.load("{output}", weights_only=True)["weights"]')
    else:
        console.print(f'load:  safetensors.torch.load_file("{output}")')
