"""Removes a study for good.

It gets a hidden name first, in one step, and is then removed file by file: killed in between, it is
gone for every command, and the next removal in this storage clears the rest away.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from samtune import working_copy
from samtune.errors import SamtuneError
from samtune.files import remove, sync_folder
from samtune.study.fetching import STUDY_FILES
from samtune.study.folder import StudyFolder, check_name, study_names
from samtune.study.manifest import Manifest
from samtune.working_copy import is_copy

HIDDEN = ".deleted-"


def to_delete(storage: Path, name: str, *, force_unlock: bool = False) -> StudyFolder:
    """A study that there is, however damaged, and that nobody runs.

    Raises:
        SamtuneError: there is none of this name, or a driver is at work on it.
    """
    check_name(name)
    folder = StudyFolder(storage.absolute() / name)
    if name not in study_names(storage):
        return StudyFolder.open(storage, name)  # which says what there is
    folder.refuse_link(folder.root)
    manifest = _manifest(folder)
    driver = manifest.driver if manifest else None
    if driver and driver.is_local and driver.is_alive:
        raise SamtuneError(
            f"study {name!r} is being run by {driver}: end it first with `samtune stop {name}`"
        )
    if manifest:
        folder.refuse_elsewhere(manifest, force_unlock=force_unlock)
    return folder


def delete(folder: StudyFolder, *, force_unlock: bool = False) -> int:
    """Removes a study and all its files; a link in it goes, and not what it points at.

    Returns:
        How many bytes that frees.

    Raises:
        SamtuneError: a driver holds it.
    """
    if is_copy(folder.root):
        return _delete_objects(folder, force_unlock=force_unlock)
    storage = folder.root.parent
    hidden = storage / f"{HIDDEN}{folder.name}-{uuid.uuid4().hex[:8]}"
    with folder.locked():
        if manifest := _manifest(folder):
            folder.refuse_elsewhere(manifest, force_unlock=force_unlock)
        freed = size_of(folder.root)
        os.replace(folder.root, hidden)
        sync_folder(storage)
    shutil.rmtree(hidden)
    for left in storage.glob(f"{HIDDEN}*"):  # by a removal that was killed
        shutil.rmtree(left, ignore_errors=True)
    return freed


def _delete_objects(folder: StudyFolder, *, force_unlock: bool) -> int:
    """Removes the objects that say that there is a study, then the others.

    A bucket has no hidden name for them: killed in between, what is left is no study, and a
    removal of the same name clears it away.
    """
    with folder.locked(force=force_unlock):
        folder.fetch()
        freed = size_of(folder.root)
        for name in STUDY_FILES:
            remove(folder.root / name)
        working_copy.delete_folder(folder.root)
    working_copy.delete_folder(folder.root)  # the lease was given back to it
    return freed


def _manifest(folder: StudyFolder) -> Manifest | None:
    """None where it is gone or damaged, so that nobody can run the study."""
    try:
        return folder.manifest
    except SamtuneError:
        return None


def size_of(root: Path) -> int:
    """The bytes of all files in a folder, or of all its objects."""
    if is_copy(root):
        return working_copy.size_of(root)
    paths = (os.path.join(top, name) for top, _, names in os.walk(root) for name in names)
    return sum(os.lstat(path).st_size for path in paths)
