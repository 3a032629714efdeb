"""Removes a study for good.

It gets a hidden name first, in one step, and is then removed file by file: killed in between, it is
gone for every command, and the next removal in this storage clears the rest away.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from samtune.errors import SamtuneError
from samtune.files import sync_folder
from samtune.study.folder import StudyFolder, check_name, study_names
from samtune.study.manifest import Manifest

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


def _manifest(folder: StudyFolder) -> Manifest | None:
    """None where it is gone or damaged, so that nobody can run the study."""
    try:
        return folder.manifest
    except SamtuneError:
        return None


def size_of(root: Path) -> int:
    """The bytes of all files in a folder."""
    paths = (os.path.join(top, name) for top, _, names in os.walk(root) for name in names)
    return sum(os.lstat(path).st_size for path in paths)
