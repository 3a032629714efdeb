from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samtune.errors import FencedError
from samtune.study.journal import Attempt, Entry, Journal


def _entry(epoch: int, **changes: object) -> Entry:
    entry = Entry(1, 1, epoch, {"val_accuracy": epoch / 10}, 0.1, 0, f"state-{epoch:05d}.pt", "0")
    return replace(entry, **changes)  # type: ignore[arg-type]


def _by(attempt: Attempt, epoch: int, **changes: object) -> Entry:
    session, number, worker = attempt
    return _entry(epoch, session=session, attempt=number, worker=worker, **changes)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "epochs.jsonl")
    for epoch in (1, 2, 3):
        journal.append(_entry(epoch))
    return journal


def test_what_was_appended_is_read(journal: Journal) -> None:
    assert [e.epoch for e in journal.epochs()] == [1, 2, 3]
    assert journal.epochs()[2] == _entry(3)


def test_an_absent_journal_has_no_epochs(tmp_path: Path) -> None:
    assert Journal(tmp_path / "epochs.jsonl").epochs() == []


@pytest.mark.parametrize("lost", [1, 2, 10, 60])
def test_readers_and_repair_agree_on_a_torn_last_line(journal: Journal, lost: int) -> None:
    journal.path.write_bytes(journal.path.read_bytes()[:-lost])
    # All of the line but its end of line is a whole epoch.
    left = [1, 2, 3] if lost == 1 else [1, 2]
    assert [e.epoch for e in journal.epochs()] == left
    assert journal.repair() == ""
    assert [e.epoch for e in journal.epochs()] == left
    raw = journal.path.read_bytes()
    assert raw.endswith(b"\n")
    assert raw.count(b"\n") == 1 + len(left)  # the attempt's beginning, and its epochs
    journal.append(_entry(len(left) + 1))
    assert [e.epoch for e in journal.epochs()] == [*left, len(left) + 1]


def test_an_append_after_a_torn_line_starts_on_a_line_of_its_own(journal: Journal) -> None:
    with open(journal.path, "a") as file:
        file.write('{"session": 1, "atte')
    journal.append(_entry(4))
    assert [e.epoch for e in Journal(journal.path).epochs()] == [1, 2, 3, 4]
    assert journal.read().damage == ""


@pytest.mark.parametrize(
    "line", ["[1, 2]", "3", '"text"', "{}", '{"epoch": "4"}', "[" * 100_000, "{" * 100_000]
)
def test_a_line_that_is_no_entry_is_no_epoch(journal: Journal, line: str) -> None:
    with open(journal.path, "a") as file:
        file.write(f"{line}\n")
    assert [e.epoch for e in journal.epochs()] == [1, 2, 3]


@pytest.mark.parametrize(
    "wrong", [{"epoch": "4"}, {"metrics": [1]}, {"metrics": {"val_accuracy": "x"}}, {"state": None}]
)
def test_a_line_with_a_wrong_type_is_no_epoch(journal: Journal, wrong: dict[str, object]) -> None:
    line = {**asdict(_entry(4)), **wrong}
    with open(journal.path, "a") as file:
        file.write(f"{json.dumps(line)}\n")
    assert [e.epoch for e in journal.epochs()] == [1, 2, 3]


def test_an_epoch_trained_again_keeps_its_first_metrics(journal: Journal) -> None:
    journal.append(_entry(2, attempt=2, metrics={"val_accuracy": 0.9}))
    assert [e.metrics["val_accuracy"] for e in journal.epochs()] == [0.1, 0.2, 0.3]
    assert len(journal.lines()) == 4


def test_epochs_after_a_gap_do_not_count(journal: Journal) -> None:
    journal.append(_entry(5))
    assert [e.epoch for e in journal.epochs()] == [1, 2, 3]
    assert "line 5 does not follow" in journal.read().damage


def _nan(line: str) -> str:
    return line.replace('"val_accuracy": 0.2', '"val_accuracy": NaN')


def _other_value(line: str) -> str:
    return line.replace('"val_accuracy": 0.2', '"val_accuracy": 0.9')


@pytest.mark.parametrize("change", [_nan, _other_value, str.upper, lambda line: ""])
def test_a_changed_line_is_named_and_ends_what_counts(
    journal: Journal, change: Callable[[str], str]
) -> None:
    lines = journal.path.read_text().splitlines()
    lines[2] = change(lines[2])
    journal.path.write_text("\n".join(lines) + "\n")
    history = journal.read()
    assert [e.epoch for e in history.epochs()] == [1]
    assert history.damage == "line 3 is damaged"


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_line_taken_out_is_found_at_the_line_after_it(journal: Journal, gone: int) -> None:
    lines = journal.path.read_text().splitlines(keepends=True)
    del lines[gone]
    journal.path.write_text("".join(lines))
    history = journal.read()
    assert len(history.epochs()) == max(0, gone - 1)
    assert f"line {gone + 1} does not follow the line before it" in history.damage


def test_lines_in_another_order_do_not_count(journal: Journal) -> None:
    begun, one, two, three = journal.path.read_text().splitlines(keepends=True)
    journal.path.write_text("".join([begun, one, three, two]))
    assert [e.epoch for e in journal.epochs()] == [1]


def test_a_damaged_journal_is_kept_beside_and_goes_on(journal: Journal) -> None:
    lines = journal.path.read_text().splitlines(keepends=True)
    damaged = "".join([*lines[:2], _nan(lines[2]), *lines[3:]])
    journal.path.write_text(damaged)
    with pytest.raises(OSError, match="line 3 is damaged"):
        Journal(journal.path).append(_entry(4))
    said = journal.repair()
    assert said == "line 3 is damaged; the journal as it was is kept as epochs.jsonl.damaged-1"
    assert journal.path.with_name("epochs.jsonl.damaged-1").read_text() == damaged
    journal.append(_entry(2))
    assert [e.epoch for e in journal.epochs()] == [1, 2]

    journal.path.write_text("{}\n")
    assert "epochs.jsonl.damaged-2" in journal.repair()
    assert journal.path.with_name("epochs.jsonl.damaged-1").read_text() == damaged


def test_a_line_of_an_older_attempt_behind_a_newer_one_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "epochs.jsonl"
    old, new = Journal(path), Journal(path)
    first = old.begin(1)
    old.append(_by(first, 1))
    stale = path.read_bytes()
    old.append(_by(first, 2, metrics={"val_accuracy": 0.7}))
    late = path.read_bytes()[len(stale) :]
    path.write_bytes(stale)  # epoch 2 is held up in its worker ...

    second = new.begin(2)
    new.append(_by(second, 2))
    for epoch in (3, 4):
        with open(path, "ab") as file:
            file.write(late)  # ... and arrives now, twice even
        new.append(_by(second, epoch))
    history = Journal(path).read()
    assert [(e.epoch, e.attempt) for e in history.epochs()] == [(1, 1), (2, 2), (3, 2), (4, 2)]
    assert (history.damage, history.late) == ("", 2)
    before = path.read_bytes()
    with pytest.raises(FencedError, match="attempt 2 of session 2 goes on with it"):
        old.append(_by(first, 2))
    with pytest.raises(FencedError):
        old.begin(1)
    assert path.read_bytes() == before


def test_a_line_that_came_before_the_takeover_counts_for_good(tmp_path: Path) -> None:
    path = tmp_path / "epochs.jsonl"
    old = Journal(path)
    first = old.begin(1)
    old.append(_by(first, 1))
    before = path.read_bytes()
    # The new worker has read the journal; the old one's line slips in; then comes the beginning.
    new = Journal(path)
    second = new.begin(1)
    beginning = path.read_bytes()[len(before) :]
    path.write_bytes(before)
    Journal(path).append(_by(first, 2))
    with open(path, "ab") as file:
        file.write(beginning)
    new.append(_by(second, 3))
    assert [e.epoch for e in Journal(path).epochs()] == [1, 2, 3]
    with pytest.raises(FencedError):
        new.check(first)


def test_of_two_workers_that_begin_at_once_the_last_one_has_the_trial(tmp_path: Path) -> None:
    path = tmp_path / "epochs.jsonl"
    Journal(path).begin(1)
    first = path.read_bytes()
    path.unlink()
    one = Journal(path)
    begun = one.begin(1)
    with open(path, "ab") as file:
        file.write(first)  # of the same number, by another worker, which will see that and ...
    one.check(begun)
    other = Journal(path).begin(1)  # ... begin again
    assert other.number == 2
    with pytest.raises(FencedError):
        one.append(_by(begun, 1))


def test_an_append_is_forced_to_the_disk_before_it_returns(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, int]] = []
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        fsync(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        synced.append((path, os.stat(path).st_size))

    monkeypatch.setattr(os, "fsync", recorded)
    journal.append(_entry(4))
    whole = journal.path.stat().st_size
    assert [path for path, _ in synced] == [str(journal.path.parent), str(journal.path)]
    assert synced[-1][1] == whole


def test_a_worker_that_is_taken_over_in_the_middle_of_a_write_learns_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "epochs.jsonl"
    old = Journal(path)
    first = old.begin(1)
    write = os.write

    def held_up(descriptor: int, content: bytes) -> int:
        monkeypatch.undo()
        Journal(path).begin(2)
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", held_up)
    with pytest.raises(FencedError, match="attempt 2 of session 2"):
        old.append(_by(first, 1))
    assert Journal(path).read().epochs() == []
    assert Journal(path).read().late == 1


@pytest.mark.parametrize("is_behind", [False, True])
def test_a_write_that_fails_takes_back_its_own_part_unless_another_line_is_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_behind: bool
) -> None:
    path = tmp_path / "epochs.jsonl"
    journal = Journal(path)
    first = journal.begin(1)
    before = path.read_bytes()
    write = os.write

    def half(descriptor: int, content: bytes) -> int:
        monkeypatch.setattr(os, "write", full)
        return write(descriptor, content[: len(content) // 2])

    def full(descriptor: int, content: bytes) -> int:
        monkeypatch.undo()
        if is_behind:
            with open(path, "ab") as file:
                file.write(b"another worker's line\n")
        raise OSError("no space left")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="no space left"):
        journal.append(_by(first, 1))
    assert path.read_bytes().startswith(before)
    assert path.read_bytes().endswith(b"another worker's line\n") is is_behind
    assert (path.read_bytes() == before) is not is_behind


def test_appending_reads_nothing_again(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.append(_entry(4))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda path: pytest.fail("the journal was read"))
        for epoch in range(5, 50):
            journal.append(_entry(epoch))
    assert len(journal.epochs()) == 49


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_is_done_to_it_a_prefix_counts_and_damage_is_noticed(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "epochs.jsonl")
        for epoch in (1, 2, 3):
            journal.append(_entry(epoch))
        raw = journal.path.read_bytes()
        start = data.draw(st.integers(0, len(raw)))
        end = data.draw(st.integers(start, min(len(raw), start + 400)))
        changed = raw[:start] + data.draw(st.binary(max_size=40)) + raw[end:]
        journal.path.write_bytes(changed)
        history = journal.read()
        epochs = history.epochs()
        assert epochs == [_entry(epoch) for epoch in range(1, len(epochs) + 1)]
        whole = len(epochs) == 3
        cut = raw.startswith(changed)  # its end is gone: as a kill leaves it
        torn = b"\n" not in changed[history.end :]
        assert whole or cut or torn or history.damage
        journal.repair()
        journal.append(_entry(len(epochs) + 1, attempt=2))
        assert len(Journal(journal.path).epochs()) == len(epochs) + 1
