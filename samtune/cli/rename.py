"""`samtune rename`: another name for a study."""

from __future__ import annotations

from typing import Annotated

import typer

from samtune.cli.console import new_console
from samtune.cli.options import Plugins, Storage, StudyName
from samtune.errors import SamtuneError
from samtune.study import DEFAULT_STORAGE


def rename(
    name: StudyName,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.", show_default=False)],
    storage: Storage = DEFAULT_STORAGE,
    plugin: Plugins = None,
) -> None:
    """Give a study another name: its folder, its confirmations, and its records in MLflow."""
    from samtune import tracking
    from samtune.registry import load_plugins
    from samtune.study import open_folder
    from samtune.study.renaming import rename as give_name

    folder = give_name(open_folder(storage, name), new)
    console = new_console()
    console.print(f"Study {name} is {new} now.", markup=False, soft_wrap=True)
    if not tracking.is_recorded(folder.root):
        return
    load_plugins(plugin or [], folder.plugin_folder(plugin or []))
    try:
        _, report = tracking.sync(folder)
    except SamtuneError as error:
        again = folder.command("sync")
        line = f"MLflow knows it as {name} until `{again}` reaches it: {error}"
        console.print(line, style="yellow", markup=False, soft_wrap=True)
        return
    for note in report.notes:
        console.print(f"{note}.", style="yellow", markup=False, soft_wrap=True)
