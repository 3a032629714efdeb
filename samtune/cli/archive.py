"""`samtune archive` and `unarchive`: puts studies out of sight, and back."""

from __future__ import annotations

from samtune.cli.console import new_console
from samtune.cli.options import Storage, StudyNames
from samtune.study import DEFAULT_STORAGE


def archive(names: StudyNames, storage: Storage = DEFAULT_STORAGE) -> None:
    """Put studies away: `list` leaves them out, and none can be run until it is brought back."""
    _mark(names, storage, archived=True)


def unarchive(names: StudyNames, storage: Storage = DEFAULT_STORAGE) -> None:
    """Bring archived studies back."""
    _mark(names, storage, archived=False)


def _mark(names: list[str], storage: Storage, *, archived: bool) -> None:
    from samtune.study import StudyFolder

    console = new_console()
    for folder in [StudyFolder.open(storage, name) for name in names]:
        folder.set_archived(archived)
        where = "archived: `samtune list --archived` shows it" if archived else "back in the list"
        console.print(f"Study {folder.name} is {where}.", markup=False, soft_wrap=True)
