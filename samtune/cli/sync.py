"""`samtune sync`: ships what MLflow has not taken yet."""

from __future__ import annotations

from samtune.cli.console import new_console
from samtune.cli.options import Storage, StudyName
from samtune.study import DEFAULT_STORAGE


def sync(name: StudyName, storage: Storage = DEFAULT_STORAGE) -> None:
    """Send everything that MLflow has not taken yet; running it twice doubles nothing."""
    from samtune import tracking
    from samtune.study import StudyFolder

    sent = tracking.sync(StudyFolder.open(storage, name))
    address = tracking.without_password(tracking.tracking_uri())
    new_console().print(f"{sent} epochs sent to {address}; MLflow is up to date.")
