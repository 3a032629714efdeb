"""`samtune check`: validates and previews; starts nothing."""

from __future__ import annotations

from samtune.cli.console import new_console
from samtune.cli.options import Overrides, Plugins, Storage, StudyFile
from samtune.errors import SamtuneError
from samtune.study import DEFAULT_STORAGE


def check(
    file: StudyFile,
    overrides: Overrides = None,
    storage: Storage = DEFAULT_STORAGE,
    plugin: Plugins = None,
) -> None:
    """Check a study file and show what it would do; nothing is started."""
    from samtune.cli.summary import print_preview, print_warm_start
    from samtune.config.study_file import read_study
    from samtune.preflight import preview

    config = read_study(file, overrides or [], plugin)
    console = new_console()
    found = preview(config, storage, timed=True, fetch=False)
    print_preview(console, found)
    print_warm_start(console, config, storage)
    if found.missing and not found.fetchable:
        raise SamtuneError(found.missing)
    console.print(f"[green]{file} is fine.[/]")
