"""`samtune sync`: ships what MLflow has not taken yet."""

from __future__ import annotations

from samtune.cli.console import new_console, print_damage
from samtune.cli.options import Plugins, Storage, StudyName
from samtune.study import DEFAULT_STORAGE


def sync(name: StudyName, storage: Storage = DEFAULT_STORAGE, plugin: Plugins = None) -> None:
    """Send everything that MLflow has not taken yet; running it twice doubles nothing."""
    from samtune import tracking
    from samtune.registry import load_plugins
    from samtune.study import open_folder, open_study

    folder = open_folder(storage, name)
    load_plugins(plugin or [], folder.plugin_folder(plugin or []))
    store = tracking.store_of(folder.root)
    console = new_console()
    print_damage(console, open_study(name, storage).damage)
    if store.change:
        console.print(f"[yellow]{store.change}.[/]", soft_wrap=True)
    sent, report = tracking.sync(folder)
    console.print(f"{sent} epochs sent to {store.address}; MLflow is up to date.")
    for note in report.notes:
        console.print(f"[yellow]{note}.[/]", soft_wrap=True)
