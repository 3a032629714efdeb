from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from samtune.study.journal import Entry, Journal


def _entry(epoch: int, **changes: object) -> Entry:
    entry = Entry(1, 1, epoch, {"val_accuracy": epoch / 10}, 0.1, 0, f"state-{epoch:05d}.pt", "0")
    return replace(entry, **changes)  # type: ignore[arg-type]


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


@pytest.mark.parametrize("lost", [1, 10, 60])
def test_a_torn_last_line_is_dropped_and_repaired(journal: Journal, lost: int) -> None:
    journal.path.write_bytes(journal.path.read_bytes()[:-lost])
    # All of the line but its end of line is a whole epoch.
    left = [1, 2, 3] if lost == 1 else [1, 2]
    assert [e.epoch for e in journal.epochs()] == left
    journal.repair()
    journal.append(_entry(len(journal.epochs()) + 1))
    assert [e.epoch for e in journal.epochs()] == list(range(1, len(journal.epochs()) + 1))
    assert journal.path.read_bytes().endswith(b"\n")


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
