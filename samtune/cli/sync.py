"""`samtune sync`: ships what MLflow has not taken yet."""

from __future__ import annotations

from pathlib import Path

from samtune.cli.console import new_console, print_damage
from samtune.cli.options import Plugins, Storage, StudyName
from samtune.study import DEFAULT_STORAGE


def sync(name: StudyName, storage: Storage = DEFAULT_STORAGE, plugin: Plugins = None) -> None:
    """Send everything that MLflow has not taken yet; running it twice doubles nothing."""
    from samtune import tracking
    from samtune.registry import load_plugins
    from samtune.study import StudyFolder, open_study

    load_plugins(plugin or [], Path.cwd())
    console = new_console()
    print_damage(console, open_study(name, storage).damage)
    sent = tracking.sync(StudyFolder.open(storage, name))
    address = tracking.without_password(tracking.tracking_uri())
    console.print(f"{sent} epochs sent to {address}; MLflow is up to date.")
