"""`samtune sync`: ships what MLflow has not taken yet."""

from __future__ import annotations

from samtune.cli.console import new_console
from samtune.cli.options import Plugins, Storage, StudyName
from samtune.study import DEFAULT_STORAGE


def sync(name: StudyName, storage: Storage = DEFAULT_STORAGE, plugin: Plugins = None) -> None:
    """Send everything that MLflow has not taken yet; running it twice doubles nothing."""
    from samtune import tracking
    from samtune.registry import load_plugins
    from samtune.study import StudyFolder

    folder = StudyFolder.open(storage, name)
    load_plugins(plugin or [], folder.plugin_folder(plugin or []))
    sent = tracking.sync(folder)
    address = tracking.without_password(tracking.tracking_uri())
    new_console().print(f"{sent} epochs sent to {address}; MLflow is up to date.")
