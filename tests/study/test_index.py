"""The index saves reading, and never changes what is read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.config.trial import TrialRecord
from samtune.study import index
from samtune.study.folder import StudyFolder
from samtune.study.history import encoded
from samtune.study.journal import Entry
from samtune.study.study import Study
from samtune.study.trial_folder import Outcome, trial_key
from tests.opened import opened

Make = Callable[..., StudyConfig]
TRIALS = 60


def _write(folder: StudyFolder, like: TrialRecord, number: int, value: float) -> None:
    """An ended trial as workers write it, without waiting for the disk."""
    root = folder.trial(trial_key(number)).root
    root.mkdir()
    record = like.model_copy(update={"key": root.name, "session": 1})
    (root / "trial.json").write_text(record.model_dump_json())
    previous = ""
    with open(root / "epochs.jsonl", "wb") as journal:
        for epoch in range(3):
            metrics = {"val_accuracy": value - 0.01 * (2 - epoch)} if epoch else {}
            entry = Entry(1, 1, epoch, metrics, 0.1, 7, "s", "0", line=epoch + 1, previous=previous)
            line, previous = encoded(replace(entry))
            journal.write(line)
    outcome = Outcome("stopped", 2, "a reason with a\nline and a\ttab")
    (root / "outcome.json").write_text(json.dumps({**asdict(outcome), "session": 1}))


@pytest.fixture
def like(study_config: Make) -> TrialRecord:
    """What every trial is handed out with, but for its key."""
    return record_of(study_config(), "t0000", {"sam.rho": 0.1, "optimizer.lr": 0.02})


@pytest.fixture
def folder(
    study_folder: StudyFolder, like: TrialRecord, monkeypatch: pytest.MonkeyPatch
) -> StudyFolder:
    """Sixty ended trials that have been read once, so that there is an index."""
    monkeypatch.setattr(index, "SETTLED_NS", 0)  # not two seconds of each test
    for number in range(1, TRIALS + 1):
        _write(study_folder, like, number, number / 100)
    _read(study_folder)
    assert (study_folder.root / "index").is_file()
    return study_folder


def _read(folder: StudyFolder, *, whole: bool = False) -> Study:
    return Study(folder, folder.config(), whole=whole)


def _told(study: Study) -> list[Any]:
    told = [(t.key, t.state, t.session, t.outcome, t.value) for t in study.trials]
    content = [(t.values, t.config, t.epochs, t.metric, t.mode, t.select) for t in study.trials]
    return [told, content, study.damage, [t.key for t in study.ranking], study.left]


@contextmanager
def _opened() -> Iterator[set[str]]:
    """The trials of which a file is opened meanwhile, once that is over."""
    found: set[str] = set()
    with opened() as paths:
        yield found
    found.update(Path(path).parent.name for path in paths if "/trials/" in path)


def test_reading_a_study_twice_opens_no_ended_trial_again(folder: StudyFolder) -> None:
    with _opened() as trials:
        first = _read(folder)
        assert _told(first) == _told(_read(folder))
    assert trials == set()
    with _opened() as trials:
        assert _told(_read(folder, whole=True)) == _told(first)
    assert len(trials) == TRIALS


@pytest.mark.parametrize(("ended", "is_written"), [(49, False), (50, True)])
def test_an_index_is_written_once_fifty_trials_are_new(
    study_folder: StudyFolder,
    like: TrialRecord,
    monkeypatch: pytest.MonkeyPatch,
    ended: int,
    is_written: bool,
) -> None:
    monkeypatch.setattr(index, "SETTLED_NS", 0)
    for number in range(1, ended + 1):
        _write(study_folder, like, number, 0.5)
    _read(study_folder)
    assert (study_folder.root / "index").exists() is is_written


def test_the_best_of_a_study_is_known_without_parsing_a_trial(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_contents", None)
    study = _read(folder)
    assert [t.key for t in study.ranking] == [trial_key(n) for n in range(TRIALS, 0, -1)]
    assert (study.left, study.counts()) == (1, {"stopped": TRIALS})


def test_only_the_trial_that_changed_is_opened(folder: StudyFolder) -> None:
    (folder.trial("t0007").root / "outcome.json").unlink()
    with _opened() as trials:
        study = _read(folder)
    assert trials == {"t0007"}
    assert study.trial("t0007").state == "interrupted"


def _flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


WRONG = {
    "gone": None,
    "empty": lambda raw: b"",
    "truncated": lambda raw: raw[: len(raw) // 2],
    "without its first line": lambda raw: raw.partition(b"\n")[2],
    "a bit flipped": lambda raw: _flipped(raw, len(raw) // 3),
    "a value changed": lambda raw: raw.replace(b'"val_accuracy":0.6', b'"val_accuracy":0.9'),
    "of another study": lambda raw: raw.replace(b"of study ", b"of study x"),
    "of another version": lambda raw: raw.replace(b'"samtune": "', b'"samtune": "9'),
    "of another schema": lambda raw: raw.replace(b"schema 1", b"schema 9"),
    "no text": lambda raw: b"\xff\x00" * 100,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_index_changes_nothing_that_is_read(folder: StudyFolder, wrong: str) -> None:
    path, change = folder.root / "index", WRONG[wrong]
    before, expected = path.read_bytes(), _told(_read(folder, whole=True))
    path.unlink()
    if change:
        assert change(before) != before
        path.write_bytes(change(before))
    with _opened() as trials:
        assert _told(_read(folder)) == expected
    assert len(trials) == TRIALS
    assert path.read_bytes().partition(b"\n")[2] == before.partition(b"\n")[2]  # made anew


@pytest.mark.parametrize("file", ["trial.json", "epochs.jsonl", "outcome.json"])
def test_damage_of_equal_size_and_time_is_named(folder: StudyFolder, file: str) -> None:
    path = folder.trial("t0042").root / file
    raw, times = path.read_bytes(), path.stat()
    path.write_bytes(raw.replace(b'"', b"!", 1))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == times.st_size
    for _ in range(2):  # what is damaged does not get into the index
        damage = _read(folder).damage
        assert damage[0].where == f"trials/t0042/{file}"


def test_an_index_of_the_same_files_elsewhere_is_not_believed(
    folder: StudyFolder, tmp_path: Path
) -> None:
    copy = tmp_path / "copies" / "tiny"
    os.makedirs(copy.parent)
    shutil.copytree(folder.root, copy)  # with the times that may be given
    with _opened() as trials:
        assert _told(_read(StudyFolder(copy))) == _told(_read(folder))
    assert len(trials) == TRIALS


def test_a_file_that_may_still_be_changing_is_not_indexed(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "SETTLED_NS", 3_600_000_000_000)
    (folder.root / "index").unlink()
    _read(folder)
    assert not (folder.root / "index").exists()


def test_a_file_whose_time_was_set_back_is_not_indexed_before_it_has_settled(
    study_folder: StudyFolder, like: TrialRecord
) -> None:
    for number in range(1, TRIALS + 1):
        _write(study_folder, like, number, 0.5)
        for path in study_folder.trial(trial_key(number)).root.iterdir():
            os.utime(path, (1e9, 1e9))  # as an archive's files have it
    _read(study_folder)
    assert not (study_folder.root / "index").exists()


def test_a_settings_file_that_contradicts_the_study_file_is_not_believed(
    folder: StudyFolder,
) -> None:
    path = folder.root / "settings.json"
    settings = json.loads(path.read_text())
    parsed = settings["parsed"].replace('"trials":4', '"trials":5')
    assert parsed != settings["parsed"]
    path.write_text(json.dumps({**settings, "parsed": parsed}))
    assert folder.config().study.trials == 4


def test_trials_beyond_9999_come_in_the_order_of_their_numbers(
    study_folder: StudyFolder, like: TrialRecord
) -> None:
    numbers = [1001, 9999, 10000, 10001, 100000]
    for number in reversed(numbers):
        _write(study_folder, like, number, 0.5)
    study = _read(study_folder)
    keys = [trial_key(number) for number in numbers]
    assert [t.key for t in study.trials] == [t.key for t in study.ranking] == keys
    assert study_folder.next_number() == 100001
