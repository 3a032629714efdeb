"""Gives a study another name, everywhere in its storage.

The manifest says first what is to happen; the folder's new name, one step, makes it so; then what
else holds the old name follows: the study's settings, its confirmations and its tuned baseline. A
kill before that step leaves the study as it was, and a kill after it what is done when the study is
next opened. MLflow follows by itself, since the study's runs are known by its id (`tracking`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from samtune.config.baseline import baseline_name
from samtune.config.confirm import confirmation_name
from samtune.config.schema import StudyConfig
from samtune.errors import SamtuneError
from samtune.files import sync_folder, write_json
from samtune.study.folder import StudyFolder, check_name, study_names
from samtune.study.manifest import CONFIRM_FILE, Renaming
from samtune.study.settings import read_settings
from samtune.working_copy import is_copy


def rename(folder: StudyFolder, new: str) -> StudyFolder:
    """The study under its new name.

    Raises:
        SamtuneError: the name is none or taken, or a driver holds the study or one of its own.
    """
    check_name(new)
    if is_copy(folder.root):
        raise SamtuneError(
            f"study {folder.name!r} lies in a bucket, where nothing can be renamed in one step: "
            "copy it into a folder, with `aws s3 cp --recursive`, to give it another name there"
        )
    config = folder.config()
    if config.belongs_to:
        kind = "confirmation" if config.confirm else "tuned baseline"
        raise SamtuneError(
            f"study {folder.name!r} is a {kind}, which is called after its study: rename "
            f"{config.belongs_to!r}"
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
            for follower in _of(folder):
                _follow(follower, folder, renaming)
            manifest = folder.manifest
            _save(folder, folder.config().model_copy(update={"name": folder.name}))
        folder.write_manifest(replace(manifest, renaming=None))


def _follow(follower: StudyFolder, folder: StudyFolder, renaming: Renaming) -> None:
    """Lets one of its own studies, and what the study says of that, know of the new name."""
    with follower.held():
        name = _named_after(follower, renaming.old, renaming.new)
        found = follower.root / CONFIRM_FILE
        if found.exists():
            write_json(found, {**json.loads(found.read_bytes()), "study": renaming.new})
        _save(follower, _renamed(follower.config(), name, renaming))
        readings = [
            replace(reading, confirmation=name)
            if reading.confirmation_id == follower.study_id
            else reading
            for reading in folder.manifest.test_readings
        ]
        folder.write_manifest(replace(folder.manifest, test_readings=readings))
        os.rename(follower.root, follower.root.parent / name)
        sync_folder(follower.root.parent)


def _renamed(config: StudyConfig, name: str, renaming: Renaming) -> StudyConfig:
    """What one of the study's own is to say."""
    update: dict[str, object] = {"name": name}
    if config.baseline_of:
        update["baseline_of"] = config.baseline_of.model_copy(update={"study": renaming.new})
    if config.confirm:
        told: dict[str, object] = {"study": renaming.new}
        if config.confirm.tuned:
            tuned = {"study": baseline_name(renaming.new)}
            told["tuned"] = config.confirm.tuned.model_copy(update=tuned)
        update["confirm"] = config.confirm.model_copy(update=told)
    return config.model_copy(update=update)


def _save(folder: StudyFolder, config: StudyConfig) -> None:
    folder.save_config(config, folder.manifest.session)


def _of(folder: StudyFolder) -> list[StudyFolder]:
    """The confirmations of a study, and its tuned baseline, in its storage."""
    found = []
    for name in study_names(folder.root.parent):
        other = StudyFolder(folder.root.parent / name)
        with contextlib.suppress(SamtuneError):
            config = other.config()
            owner = config.confirm or config.baseline_of
            if owner and owner.study_id == folder.manifest.study_id:
                other.study_id = other.manifest.study_id
                found.append(other)
    return found


def _named_after(follower: StudyFolder, old: str, new: str) -> str:
    for named in (confirmation_name, baseline_name):
        if follower.name == named(old):
            return named(new)
    return follower.name


@contextlib.contextmanager
def _all_held(folders: list[StudyFolder]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(folder.held())
        yield
