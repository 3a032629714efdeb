"""Gives a study another name, everywhere in its storage.

The manifest says first what is to happen; the folder's new name, one step, makes it so; then what
else holds the old name follows: the study's settings, and its confirmations. A kill before that
step leaves the study as it was, and a kill after it what is done when the study is next opened.
MLflow follows by itself, since the study's runs are known by its id (`tracking`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from samtune.config.confirm import confirmation_name
from samtune.config.schema import StudyConfig
from samtune.errors import SamtuneError
from samtune.files import sync_folder, write_json
from samtune.study.folder import StudyFolder, check_name, study_names
from samtune.study.manifest import CONFIRM_FILE, Renaming
from samtune.study.settings import read_settings


def rename(folder: StudyFolder, new: str) -> StudyFolder:
    """The study under its new name.

    Raises:
        SamtuneError: the name is none or taken, or a driver holds the study or a confirmation.
    """
    check_name(new)
    config = folder.config()
    if config.confirm:
        raise SamtuneError(
            f"study {folder.name!r} is a confirmation, which is called after its study: rename "
            f"{config.confirm.study!r}"
        )
    followers = {_named_after(c, folder.name, new) for c in _of(folder)}
    for name in {new} | followers - {c.name for c in _of(folder)}:
        check_name(name)
        if os.path.lexists(folder.root.parent / name):
            raise SamtuneError(f"{folder.root.parent / name} exists: take another name")
    with folder.held() as manifest, _all_held(_of(folder)):
        settings = read_settings(folder.root)
        if settings and settings.accepted != (folder.root / "study.yaml").read_text("utf-8"):
            raise SamtuneError(
                f"{folder.root / 'study.yaml'} was edited since the last session: take that back, "
                f"or let `{folder.command('resume')}` take it up first"
            )
        folder.write_manifest(replace(manifest, renaming=Renaming(folder.name, new)))
        os.rename(folder.root, folder.root.parent / new)
        sync_folder(folder.root.parent)
    return open_folder(folder.root.parent, new)


def open_folder(storage: Path, name: str) -> StudyFolder:
    """A study to go on with, or to look at; what is left of a change of its name is done first.

    Raises:
        SamtuneError: there is none of this name.
    """
    folder = StudyFolder.open(storage, name)
    if folder.manifest.renaming:
        _finish(folder)
    return folder


def _finish(folder: StudyFolder) -> None:
    """Does what is left of a change of name, unless another process is at it."""
    with contextlib.suppress(SamtuneError, OSError), folder.held() as manifest:
        renaming = manifest.renaming
        if renaming and renaming.new == folder.name:
            for confirmation in _of(folder):
                _follow(confirmation, folder, renaming)
            manifest = folder.manifest
            _save(folder, folder.config().model_copy(update={"name": folder.name}))
        folder.write_manifest(replace(manifest, renaming=None))


def _follow(confirmation: StudyFolder, folder: StudyFolder, renaming: Renaming) -> None:
    """Lets a confirmation, and what the study says of it, know of the new name."""
    with confirmation.held():
        config = confirmation.config()
        assert config.confirm is not None
        name = _named_after(confirmation, renaming.old, renaming.new)
        confirm = config.confirm.model_copy(update={"study": renaming.new})
        found = confirmation.root / CONFIRM_FILE
        if found.exists():
            write_json(found, {**json.loads(found.read_bytes()), "study": renaming.new})
        _save(confirmation, config.model_copy(update={"name": name, "confirm": confirm}))
        readings = [
            replace(reading, confirmation=name)
            if reading.confirmation_id == confirmation.study_id
            else reading
            for reading in folder.manifest.test_readings
        ]
        folder.write_manifest(replace(folder.manifest, test_readings=readings))
        os.rename(confirmation.root, confirmation.root.parent / name)
        sync_folder(confirmation.root.parent)


def _save(folder: StudyFolder, config: StudyConfig) -> None:
    folder.save_config(config, folder.manifest.session)


def _of(folder: StudyFolder) -> list[StudyFolder]:
    """The confirmations of a study in its storage."""
    found = []
    for name in study_names(folder.root.parent):
        other = StudyFolder(folder.root.parent / name)
        with contextlib.suppress(SamtuneError):
            confirm = other.config().confirm
            if confirm and confirm.study_id == folder.manifest.study_id:
                other.study_id = other.manifest.study_id
                found.append(other)
    return found


def _named_after(confirmation: StudyFolder, old: str, new: str) -> str:
    own = confirmation.name == confirmation_name(old)
    return confirmation_name(new) if own else confirmation.name


@contextlib.contextmanager
def _all_held(folders: list[StudyFolder]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(folder.held())
        yield
