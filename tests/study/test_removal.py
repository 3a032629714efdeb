"""A study is removed whole, or not at all as far as anybody can see."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from samtune.config.schema import StudyConfig
from samtune.errors import SamtuneError, UnknownNameError
from samtune.study.driver import Driver
from samtune.study.folder import StudyFolder, study_names
from samtune.study.removal import HIDDEN, delete, size_of, to_delete

Make = Callable[..., StudyConfig]


def test_all_of_it_goes_and_what_links_point_at_stays(
    study_folder: StudyFolder, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine")
    (study_folder.root / "link").symlink_to(outside)
    whole = size_of(study_folder.root)
    assert whole > 1000
    assert delete(to_delete(tmp_path, "tiny")) == whole
    assert sorted(os.listdir(tmp_path)) == ["outside"]
    assert (outside / "mine.txt").read_text() == "mine"


def test_a_study_that_runs_stays(study_folder: StudyFolder, tmp_path: Path) -> None:
    with study_folder.session():
        with pytest.raises(SamtuneError, match="end it first with `samtune stop tiny`"):
            to_delete(tmp_path, "tiny")
        manifest = study_folder.manifest
        study_folder.write_manifest(replace(manifest, driver=None))
        with pytest.raises(SamtuneError, match="is being run by another command"):
            delete(to_delete(tmp_path, "tiny"))
    assert study_names(tmp_path) == ["tiny"]


def test_a_driver_on_another_machine_is_believed(study_folder: StudyFolder, tmp_path: Path) -> None:
    driver = Driver("elsewhere", 1, "2026-01-01", "1")
    study_folder.write_manifest(replace(study_folder.manifest, driver=driver))
    with pytest.raises(SamtuneError, match="elsewhere.*--force-unlock"):
        to_delete(tmp_path, "tiny")
    delete(to_delete(tmp_path, "tiny", force_unlock=True), force_unlock=True)
    assert study_names(tmp_path) == []


@pytest.mark.parametrize("content", [None, b"", b'{"schema": 1}'])
def test_a_damaged_study_goes_as_well(
    study_folder: StudyFolder, tmp_path: Path, content: bytes | None
) -> None:
    manifest = study_folder.root / "manifest.json"
    manifest.unlink() if content is None else manifest.write_bytes(content)
    delete(to_delete(tmp_path, "tiny"))
    assert os.listdir(tmp_path) == []


def test_what_is_no_study_of_this_storage_stays(study_folder: StudyFolder, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    (storage / "notes").mkdir(parents=True)
    (storage / "linked").symlink_to(study_folder.root)
    with pytest.raises(SamtuneError, match="is a link"):
        to_delete(storage, "linked")
    for name in ("notes", "tin"):
        with pytest.raises(UnknownNameError):
            to_delete(storage, name)
    for name in ("..", "../tiny", "/tiny", ""):
        with pytest.raises(SamtuneError, match="is no study name"):
            to_delete(storage, name)
    assert study_names(tmp_path) == ["tiny"]


def test_killed_while_it_is_removed_it_is_gone_and_the_next_removal_clears_up(
    study_folder: StudyFolder, study_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, **_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            delete(to_delete(tmp_path, "tiny"))
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(f"{HIDDEN}tiny-")
    assert study_names(tmp_path) == []
    again = StudyFolder.create(tmp_path, study_config())  # the name is free
    assert study_names(tmp_path) == ["tiny"]
    delete(again)
    assert os.listdir(tmp_path) == []
