"""Killed, held up or out of space inside any single write, a trial loses and doubles nothing."""

from __future__ import annotations

import contextlib
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samtune.data import DataSplits
from samtune.errors import FencedError
from samtune.study.folder import StudyFolder
from samtune.study.journal import Journal
from samtune.study.study import Study
from samtune.study.trial_folder import Outcome, TrialFolder
from samtune.study.trial_run import Progress, run_trial
from samtune.training.checkpoint import load_weights
from tests.faults.disk import Disk, fill, go_read_only, kill, wear_out
from tests.faults.saboteur import CPU, EPOCHS, PASSES, Killed, Saboteur, curve, run

Shape = dict[str, float]


def _nothing(disk: Disk) -> None:
    pass


@pytest.fixture
def operations(trial: TrialFolder, digits: DataSplits, tmp_path: Path) -> list[str]:
    """What an undisturbed trial does to its disk."""
    record = trial.record()
    assert record is not None
    other = TrialFolder(tmp_path / "counted")
    other.hand_out(record, 1)
    with Disk(0, _nothing).watched() as disk:
        run(other, digits)
    shutil.rmtree(other.root)
    Saboteur.passes = 0
    return disk.done


def _study(trial: TrialFolder) -> Study:
    folder = StudyFolder(trial.root.parent.parent)
    return Study(folder, folder.config())


def _best_weights(trial: TrialFolder) -> tuple[dict[str, torch.Tensor], int] | None:
    """The best weights, which are whole if there is an epoch, and their epoch."""
    best = _study(trial).trial(trial.key).best_epoch
    if best is None:
        return None
    assert trial.is_whole(best.weights, best.weights_sha256)
    weights, about = load_weights(trial.file(best.weights), dict)
    assert (about["epoch"], about["metrics"]) == (best.epoch, best.metrics)
    return weights, best.epoch


def _follow(trial: TrialFolder, digits: DataSplits, session: int = 1) -> list[Progress]:
    """The trial until something ends it, `Killed` or `OSError` included."""
    seen: list[Progress] = []
    try:
        for progress in run_trial(trial, session, device=CPU, data=digits):
            seen.append(progress)
            told = Journal(trial.journal).epochs()
            assert [e.metrics for e in told][: progress.epoch] == [*curve(seen)][: len(told)]
    except (Killed, OSError):
        pass
    return seen


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kills=st.lists(st.integers(1, 70), min_size=1, max_size=4))
def test_killed_inside_any_writes_it_ends_as_if_never_stopped(
    trial: TrialFolder,
    digits: DataSplits,
    undisturbed: list[Shape],
    kills: list[int],
) -> None:
    for path in trial.root.iterdir():
        if path.name != "trial.json":
            path.unlink()
    Saboteur.passes = 0
    printed: list[Shape] = []
    for at in kills:
        with Disk(at, kill).watched():
            seen = _follow(trial, digits)
        printed += [p.metrics for p in seen if p.metrics and not p.replayed]
        study = _study(trial)
        assert study.damage == []
        assert printed == undisturbed[: len(printed)]
        journaled = [e.metrics for e in study.trial(trial.key).epochs]
        assert journaled == undisturbed[: len(journaled)]
        assert len(journaled) >= len(printed)
        printed = journaled  # what the next attempt replays
        _best_weights(trial)
    last = run(trial, digits)
    assert curve(last) == undisturbed
    assert last[-1].outcome == Outcome("finished", EPOCHS)
    assert [e.epoch for e in Journal(trial.journal).lines()] == list(range(1, EPOCHS + 1))
    assert Saboteur.passes <= PASSES * (EPOCHS + len(kills))
    assert not trial.leftovers() or last[0].replayed


def test_an_epochs_files_are_on_the_disk_before_its_line_and_that_before_it_is_told(
    trial: TrialFolder, digits: DataSplits
) -> None:
    with Disk(0, _nothing).watched() as disk:
        next(run_trial(trial, 1, device=CPU, data=digits))
    begin, file, names, line = (
        ["write"],
        ["open", "fsync", "replace"],
        ["fsync"],
        ["write", "fsync"],
    )
    data, state, weights = file, file, file
    assert disk.done == [*begin, *data, *state, *weights, *names, *line]


def test_every_single_operation_may_be_the_last(
    trial: TrialFolder, digits: DataSplits, undisturbed: list[Shape], operations: list[str]
) -> None:
    record = trial.record()
    assert record is not None
    run(trial, digits)
    best = _best_weights(trial)
    assert best is not None
    for at in range(1, len(operations) + 1):
        shutil.rmtree(trial.root)
        trial.hand_out(record, 1)
        with Disk(at, kill).watched():
            _follow(trial, digits)
        assert curve(run(trial, digits)) == undisturbed, (at, operations[at - 1])
        again = _best_weights(trial)
        assert again is not None
        assert again[1] == best[1]
        assert all(torch.equal(tensor, best[0][name]) for name, tensor in again[0].items())
        names = {path.name[:5] for path, _ in trial.checkpoints()}
        assert names == {"state", "best-"}


EACH = [3, pytest.param(1, marks=pytest.mark.slow)]


@pytest.mark.parametrize("step", EACH)
def test_a_worker_held_up_inside_any_write_changes_nothing_any_more(
    trial: TrialFolder,
    digits: DataSplits,
    undisturbed: list[Shape],
    operations: list[str],
    step: int,
) -> None:
    record = trial.record()
    assert record is not None
    # Before an fsync is as good as before what follows it.
    for at, name in [o for o in enumerate(operations, 1) if o[1] != "fsync"][::step]:
        shutil.rmtree(trial.root)
        trial.hand_out(record, 1)
        before: dict[str, object] = {}

        def new_session(_: Disk, before: dict[str, object] = before) -> None:
            trial.hand_out(record, 2)
            assert curve(run(trial, digits, session=2)) == undisturbed
            before["lines"] = Journal(trial.journal).epochs()
            before["best"] = _best_weights(trial)

        # FileNotFoundError: the new worker has removed the file it was just writing.
        fenced = contextlib.suppress(FencedError, FileNotFoundError)
        with Disk(at, new_session).watched(), fenced:
            run(trial, digits, session=1)
        where = (at, name)
        assert Journal(trial.journal).epochs() == before["lines"], where
        assert trial.outcome() == Outcome("finished", EPOCHS), where
        best, was = _best_weights(trial), before["best"]
        assert best is not None
        assert isinstance(was, tuple)
        assert best[1] == was[1], where
        for entry in Journal(trial.journal).epochs()[-2:]:
            assert trial.is_whole(entry.state, entry.sha256), where
        study = _study(trial)
        assert study.damage == [], where
        assert study.trial(trial.key).state == "finished"


def test_an_attempt_removes_older_ones_files_and_leaves_newer_ones(
    trial: TrialFolder, digits: DataSplits
) -> None:
    names = ["state-00009-a1.pt", "best-00009-a1-0f.safetensors", ".tmp-0"]
    newer = ["state-00009-a7-0f.pt", "best-00001-a7.safetensors"]
    for name in (*names, *newer, "state-of-mine.pt"):
        (trial.root / name).write_bytes(b"")
    run(trial, digits)
    left = {path.name for path in trial.root.iterdir()}
    assert not left & set(names)
    assert {*newer, "state-of-mine.pt"} <= left


def test_another_attempt_of_the_same_session_is_fenced_alike(
    trial: TrialFolder, digits: DataSplits, undisturbed: list[Shape]
) -> None:
    lost = run_trial(trial, 1, device=CPU, data=digits)
    next(lost)  # its node is cut off, and Ray gives the trial to another worker
    other = run_trial(trial, 1, device=CPU, data=digits)
    assert next(other).replayed
    next(other)
    one, two = Journal(trial.journal).epochs()
    assert one.state.startswith("state-00001-a1-")
    assert two.state.startswith("state-00002-a2-")
    files = {path.name: path.read_bytes() for path in trial.root.iterdir()}
    with pytest.raises(FencedError, match="attempt 2 of session 1 goes on with it"):
        next(lost)
    assert {path.name: path.read_bytes() for path in trial.root.iterdir()} == files
    assert curve([*other]) == undisturbed[2:]


@pytest.mark.parametrize("step", EACH)
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (fill, "No space left"),
        pytest.param(go_read_only, "Read-only file system", marks=pytest.mark.slow),
        pytest.param(wear_out, "Input/output error", marks=pytest.mark.slow),
    ],
)
def test_a_disk_that_fails_leaves_what_was_there_and_says_where(
    trial: TrialFolder,
    digits: DataSplits,
    undisturbed: list[Shape],
    operations: list[str],
    fault: Callable[[Disk], None],
    said: str,
    step: int,
) -> None:
    record = trial.record()
    assert record is not None
    failing = [o for o in enumerate(operations, 1) if o[1] in ("write", "fsync", "replace")]
    for at, name in failing[::step]:
        shutil.rmtree(trial.root)
        trial.hand_out(record, 1)
        seen: list[Progress] = []
        progress = run_trial(trial, 1, device=CPU, data=digits)
        with Disk(at, fault).watched(), pytest.raises(OSError, match=said) as caught:
            seen.extend(progress)
        assert caught.value.filename is not None, (at, name)
        assert not trial.leftovers(), (at, name)
        raw = trial.journal.read_bytes() if trial.journal.exists() else b"\n"
        assert raw.endswith(b"\n") or not raw
        assert curve(seen) == [e.metrics for e in Journal(trial.journal).epochs()]
        _best_weights(trial)
        assert _study(trial).damage == []
        assert curve(run(trial, digits)) == undisturbed, (at, name)


def test_a_limit_on_files_is_met_without_a_trace(
    trial: TrialFolder, digits: DataSplits, undisturbed: list[Shape]
) -> None:
    progress = run_trial(trial, 1, device=CPU, data=digits)
    next(progress)
    journal = Journal(trial.journal)
    second = replace(journal.lines()[-1], epoch=2)
    before = trial.journal.read_bytes()
    attempts: list[tuple[int, Callable[[], object], str]] = [
        (len(before) + 100, lambda: journal.append(second), "epochs"),
        (0, lambda: next(progress), "state-00002"),
    ]
    for size, write, name in attempts:
        with pytest.raises(OSError, match="File too large") as caught, _files_up_to(size):
            write()
        assert Path(caught.value.filename).name.startswith(name)
        assert trial.journal.read_bytes() == before
    assert not trial.leftovers()
    assert before.count(b"\n") == 2
    assert before.endswith(b"\n")
    assert curve(run(trial, digits)) == undisturbed


@contextlib.contextmanager
def _files_up_to(size: int) -> Iterator[None]:
    """The system itself refuses what would make a file larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
