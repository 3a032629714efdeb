"""A session's decisions, without Ray: hand out, go on, end, and all of it again after a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samtune.config.schema import StudyConfig
from samtune.errors import FencedError
from samtune.study.folder import StudyFolder
from samtune.study.journal import Attempt, Entry, Journal
from samtune.study.study import Study
from samtune.study.trial_folder import EndState, LetGo, Outcome, TrialFolder
from samtune.tuning.patience import StorageWaitError
from samtune.tuning.run import Silent
from samtune.tuning.search import Search
from tests.faults.disk import Disk, kill
from tests.faults.saboteur import Killed

Make = Callable[..., StudyConfig]


def _journal(trial: TrialFolder, epoch: int, value: float, session: int = 1) -> None:
    metrics = {"val_accuracy": value}
    Journal(trial.journal).append(Entry(session, 1, epoch, metrics, 0.1, 0, "state", "0"))


def _epoch(search: Search, folder: StudyFolder, key: str, epoch: int, value: float) -> bool:
    """What a worker and Ray do for one epoch: the journal first, then the driver."""
    _journal(folder.trial(key), epoch, value)
    return search.on_epoch(key, epoch, {"val_accuracy": value}, 0.1, replayed=False)


def _finish(search: Search, folder: StudyFolder, key: str, epoch: int) -> None:
    outcome = Outcome("finished", epoch)
    folder.trial(key).end(outcome)
    search.end(key, outcome, write=False)


def test_the_baseline_comes_first_and_is_not_the_samplers(
    study_folder: StudyFolder, study_config: Make
) -> None:
    search = Search(study_folder, study_config(), 1, Silent())
    assert search.to_run == 5
    assert search.next_trial() == "t0000"
    record = study_folder.trial("t0000").record()
    assert record is not None
    assert record.config.sam.rho == 0.0
    assert search.sampler.study.trials == []
    keys = [search.next_trial() for _ in range(5)]
    assert keys == ["t0001", "t0002", "t0003", "t0004", None]
    assert len(search.sampler.study.trials) == 4


def test_a_stopped_trial_is_pruned_with_its_last_value(
    study_folder: StudyFolder, study_config: Make
) -> None:
    search = Search(study_folder, study_config(), 1, Silent())
    for _ in range(3):
        search.next_trial()
    assert _epoch(search, study_folder, "t0001", 1, 0.9)
    assert not _epoch(search, study_folder, "t0002", 1, 0.1)
    assert study_folder.trial("t0002").outcome() == Outcome("stopped", 1)
    told = search.sampler.study.trials[1]
    assert told.state.name == "PRUNED"
    assert told.intermediate_values == {1: 0.1}


def test_the_baseline_is_never_stopped(study_folder: StudyFolder, study_config: Make) -> None:
    search = Search(study_folder, study_config(), 1, Silent())
    search.next_trial()
    for _ in range(2):
        search.next_trial()
    assert _epoch(search, study_folder, "t0001", 1, 0.9)
    assert _epoch(search, study_folder, "t0000", 1, 0.0)


def test_an_epoch_told_twice_counts_once(study_folder: StudyFolder, study_config: Make) -> None:
    search = Search(study_folder, study_config(), 1, Silent())
    for _ in range(2):
        search.next_trial()
    _epoch(search, study_folder, "t0001", 1, 0.9)
    assert search.on_epoch("t0001", 1, {"val_accuracy": 0.1}, 0.1, replayed=True)
    assert search.sampler.study.trials[0].intermediate_values == {1: 0.9}


def test_a_diverged_trial_poisons_nobody(study_folder: StudyFolder, study_config: Make) -> None:
    search = Search(study_folder, study_config(), 1, Silent())
    for _ in range(3):
        search.next_trial()
    _epoch(search, study_folder, "t0001", 1, 0.9)
    diverged = Outcome("diverged", 2, "val_loss not finite in epoch 2")
    study_folder.trial("t0001").end(diverged)
    search.end("t0001", diverged, write=False)
    _epoch(search, study_folder, "t0002", 1, 0.95)
    for epoch in (2, 3):
        assert _epoch(search, study_folder, "t0002", epoch, 0.9)
    _finish(search, study_folder, "t0002", 3)
    study = Study(study_folder, study_config())
    assert study.best is not None
    assert (study.best.key, study.best.value) == ("t0002", 0.95)
    states = [t.state.name for t in search.sampler.study.trials]
    assert states == ["PRUNED", "COMPLETE"]
    values = [v for t in search.sampler.study.trials for v in t.intermediate_values.values()]
    assert all(math.isfinite(v) for v in values)


def test_a_study_gives_up_after_too_many_failures(
    study_folder: StudyFolder, study_config: Make
) -> None:
    config = study_config(("study: {", "study: {max_failed_in_row: 2, "))
    search = Search(study_folder, config, 1, Silent())
    for key in ("t0000", "t0001"):
        assert search.next_trial() == key
        search.worker_lost_for_good(key, "killed")
    assert search.failures.verdict == "2 trials failed in a row"
    assert search.next_trial() is None
    outcome = study_folder.trial("t0001").outcome()
    assert outcome is not None
    assert outcome.state == "failed"


def test_a_decision_that_was_due_when_the_driver_died_is_made_by_the_next_session(
    study_folder: StudyFolder, study_config: Make
) -> None:
    search = Search(study_folder, study_config(), 1, Silent())
    keys = [search.next_trial() for _ in range(4)]
    assert keys == ["t0000", "t0001", "t0002", "t0003"]
    for key, value in (("t0001", 0.9), ("t0002", 0.1), ("t0003", 0.95)):
        _journal(study_folder.trial(key), 1, value)  # and the driver never hears of it
    again = Search(study_folder, study_config(), 2, Silent())
    assert study_folder.trial("t0002").outcome() == Outcome("stopped", 1)
    assert [t.state.name for t in again.sampler.study.trials] == ["RUNNING", "PRUNED", "RUNNING"]
    handed_out = [again.next_trial() for _ in range(4)]
    assert handed_out == ["t0000", "t0001", "t0003", "t0004"]


def test_a_resumed_study_compares_new_trials_with_all_that_were(
    study_folder: StudyFolder, study_config: Make
) -> None:
    config = study_config(("trials: 4", "trials: 8"))
    search = Search(study_folder, config, 1, Silent())
    for _ in range(4):
        search.next_trial()
    for key, value in (("t0001", 0.8), ("t0002", 0.9), ("t0003", 0.95)):
        for epoch in (1, 2):
            assert _epoch(search, study_folder, key, epoch, value)
    again = Search(study_folder, config, 2, Silent())
    for expected in ("t0000", "t0001", "t0002", "t0003", "t0004"):
        assert again.next_trial() == expected
    assert not _epoch(again, study_folder, "t0004", 1, 0.85)  # the lower half of four


def test_a_resumed_study_tells_optuna_what_its_trials_did(
    study_folder: StudyFolder, study_config: Make
) -> None:
    search = Search(study_folder, study_config(), 1, Silent())
    for _ in range(4):
        search.next_trial()
    for key, values in (("t0001", [0.8, 0.7, 0.9]), ("t0002", [0.1]), ("t0003", [0.85, 0.86])):
        for epoch, value in enumerate(values, 1):
            _epoch(search, study_folder, key, epoch, value)
    _finish(search, study_folder, "t0001", 3)
    again = Search(study_folder, study_config(), 2, Silent())
    assert [again.next_trial() for _ in range(2)] == ["t0000", "t0003"]
    told = {t.state.name: t.intermediate_values for t in again.sampler.study.trials}
    assert told == {
        "COMPLETE": {1: 0.8, 2: 0.7, 3: 0.9},
        "PRUNED": {1: 0.1},
        "RUNNING": {1: 0.85, 2: 0.86},
    }


@pytest.mark.parametrize(("select", "value"), [("best", 0.9), ("last", 0.7)])
def test_a_finished_trial_counts_by_what_the_study_selects(
    study_folder: StudyFolder, study_config: Make, select: str, value: float
) -> None:
    told: list[float | None] = []

    class Watching(Silent):
        def on_end(self, key: str, outcome: Outcome, value: float | None) -> None:
            told.append(value)

    config = study_config(("study: {", f"study: {{select: {select}, baseline: false, "))
    search = Search(study_folder, config, 1, Watching())
    search.next_trial()
    for epoch, accuracy in enumerate([0.8, 0.9, 0.7], 1):
        _epoch(search, study_folder, "t0001", epoch, accuracy)
    _finish(search, study_folder, "t0001", 3)
    assert search.sampler.study.trials[0].value == value
    assert told == [value]
    again = Search(study_folder, config, 2, Silent())
    assert again.sampler.study.trials[0].value == value


def test_the_last_epoch_is_no_decision_to_be_made_anew(
    study_folder: StudyFolder, study_config: Make
) -> None:
    config = study_config(("grace_epochs: 1", "grace_epochs: 3"))
    search = Search(study_folder, config, 1, Silent())
    for _ in range(3):
        search.next_trial()
    for key, value in (("t0001", 0.9), ("t0002", 0.1)):
        for epoch in (1, 2, 3):
            _journal(study_folder.trial(key), epoch, value)
    Search(study_folder, config, 2, Silent())
    assert study_folder.trial("t0002").outcome() is None  # its worker finishes it


def test_a_trial_that_cannot_be_written_down_is_handed_out_once_it_can(
    study_folder: StudyFolder, study_config: Make
) -> None:
    waits: list[str] = []

    class Waiting(Silent):
        def on_wait(self, key: str, reason: str) -> None:
            waits.append(key)

    search = Search(study_folder, study_config(), 1, Waiting())
    assert search.next_trial() == "t0000"
    trials, away = study_folder.root / "trials", study_folder.root / "away"
    trials.rename(away)
    trials.write_text("in the way")
    for _ in range(3):
        with pytest.raises(StorageWaitError):
            search.next_trial()
    assert waits == ["t0001"]
    trials.unlink()
    away.rename(trials)
    assert [search.next_trial() for _ in range(5)] == ["t0001", "t0002", "t0003", "t0004", None]
    assert len(search.sampler.study.trials) == 4


def test_a_storage_that_fails_for_longer_than_the_study_waits_is_given_up(
    study_folder: StudyFolder, study_config: Make
) -> None:
    search = Search(
        study_folder, study_config(("study: {", "study: {storage_wait: 0, ")), 1, Silent()
    )
    trials = study_folder.root / "trials"
    trials.rename(study_folder.root / "away")
    trials.write_text("in the way")
    with pytest.raises(OSError, match="t0000"):
        search.next_trial()


@pytest.mark.parametrize("is_over", [False, True])
def test_an_outcome_that_cannot_be_written_yet_is_written_later(
    study_folder: StudyFolder, study_config: Make, is_over: bool
) -> None:
    search = Search(study_folder, study_config(), 1, Silent())
    for _ in range(5 if is_over else 3):
        assert search.next_trial()
    assert _epoch(search, study_folder, "t0001", 1, 0.9)
    _journal(study_folder.trial("t0002"), 1, 0.1)
    root = study_folder.root / "trials"
    (root / "t0002").rename(root / "away")
    assert not search.on_epoch("t0002", 1, {"val_accuracy": 0.1}, 0.1, replayed=False)
    (root / "away").rename(root / "t0002")
    if is_over:
        search.finish()
    else:
        search.next_trial()
    assert study_folder.trial("t0002").outcome() == Outcome("stopped", 1)


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_study_that_cannot_be_reached_for_a_while_loses_no_trial_by_it(
    study_folder: StudyFolder, study_config: Make, is_gone: bool
) -> None:
    search = Search(study_folder, study_config(), 1, Silent())
    assert search.next_trial() == "t0000"
    manifest, away = study_folder.root / "manifest.json", study_folder.root / "away"
    manifest.rename(away)
    if not is_gone:
        manifest.mkdir()  # there, but no file that one could read
    with pytest.raises(StorageWaitError):
        search.next_trial()
    if not is_gone:
        manifest.rmdir()
    away.rename(manifest)
    assert [search.next_trial() for _ in range(5)] == ["t0001", "t0002", "t0003", "t0004", None]


def test_a_damaged_outcome_does_not_stand_in_the_way_of_the_decision_it_held(
    study_folder: StudyFolder, study_config: Make
) -> None:
    search = Search(study_folder, study_config(), 1, Silent())
    for _ in range(3):
        search.next_trial()
    assert _epoch(search, study_folder, "t0001", 1, 0.9)
    assert not _epoch(search, study_folder, "t0002", 1, 0.1)
    (study_folder.trial("t0002").root / "outcome.json").write_text("")
    again = Search(study_folder, study_config(), 2, Silent())
    assert study_folder.trial("t0002").outcome() == Outcome("stopped", 1)
    assert [again.next_trial() for _ in range(3)] == ["t0000", "t0001", "t0003"]


def test_a_trial_that_is_damaged_while_it_runs_is_set_aside_and_the_others_go_on(
    study_folder: StudyFolder, study_config: Make
) -> None:
    search = Search(study_folder, study_config(), 1, Silent())
    for _ in range(3):
        search.next_trial()
    assert _epoch(search, study_folder, "t0001", 1, 0.9)
    _journal(study_folder.trial("t0002"), 1, 0.1)
    (study_folder.trial("t0002").root / "trial.json").write_text("")
    assert not search.on_epoch("t0002", 1, {"val_accuracy": 0.1}, 0.1, replayed=False)
    assert list(search.set_aside) == ["t0002"]
    assert search.next_trial() == "t0003"


def test_a_grid_hands_out_no_more_than_it_holds(
    study_folder: StudyFolder, study_config: Make
) -> None:
    config = study_config(
        ("study: {trials: 4", "study: {sampler: grid, baseline: false, trials: 100"),
        ("sam.rho: {float: [0.01, 1.0], log: true}", "sam.rho: {choice: [0.1, 0.2, 0.3]}"),
        ("optimizer.lr: {float: [0.01, 0.5], log: true}", "model.width_factor: {int: [1, 2]}"),
    )
    assert Search(study_folder, config, 1, Silent()).to_run == 6


def test_a_damaged_trial_is_set_aside_and_a_damaged_baseline_written_anew(
    study_folder: StudyFolder, study_config: Make
) -> None:
    first = Search(study_folder, study_config(), 1, Silent())
    for _ in range(3):
        key = first.next_trial()
        assert key is not None
        _epoch(first, study_folder, key, 1, 0.5)
    for key in ("t0000", "t0002"):
        (study_folder.trial(key).root / "trial.json").write_text("")
    again = Search(study_folder, study_config(), 2, Silent())
    handed_out = [again.next_trial() for _ in range(6)]
    assert handed_out == ["t0001", "t0000", "t0003", "t0004", "t0005", None]
    study = Study(study_folder, study_config())
    assert [str(d).split(" is ")[0] for d in study.damage] == ["trials/t0002/trial.json"]
    assert study.baseline is not None
    assert len(study.baseline.epochs) == 1
    assert (study_folder.trial("t0002").root / "trial.json").read_text() == ""


def test_a_stale_drivers_stop_does_not_count(study_folder: StudyFolder, study_config: Make) -> None:
    old = Search(study_folder, study_config(("trials: 4", "trials: 1")), 1, Silent())
    key = old.next_trial()
    assert key is not None
    new = Search(study_folder, study_config(("trials: 4", "trials: 1")), 2, Silent())
    assert new.next_trial() == key
    with pytest.raises(FencedError):
        old.end(key, Outcome("stopped", 1), write=True)
    assert study_folder.trial(key).outcome() is None


class _Killed(Exception):
    pass


def _play(
    folder: StudyFolder, config: StudyConfig, session: int, random: Any, kill_after: int | None
) -> list[tuple[str, int]]:
    """A session as Ray would drive it, two trials at a time, killed after so many epochs."""
    search = Search(folder, config, session, Silent())
    running: dict[str, int] = {}
    trained: list[tuple[str, int]] = []
    while True:
        while len(running) < 2 and (key := search.next_trial()):
            done = Journal(folder.trial(key).journal).epochs()
            running[key] = len(done)
            for entry in done:
                search.on_epoch(key, entry.epoch, entry.metrics, 0.1, replayed=True)
            if len(done) == config.trial.training.epochs:  # killed before the end was written
                _finish(search, folder, key, len(done))
                del running[key]
        if not running:
            return trained
        key = str(random.choice(sorted(running)))
        epoch = running[key] + 1
        value = float(np.random.default_rng([int(key[1:]), epoch]).random())
        running[key] = epoch
        trained.append((key, epoch))
        _journal(folder.trial(key), epoch, value, session)
        if kill_after is not None and len(trained) == kill_after:
            raise _Killed
        if not search.on_epoch(key, epoch, {"val_accuracy": value}, 0.1, replayed=False):
            del running[key]
        elif epoch == config.trial.training.epochs:
            _finish(search, folder, key, epoch)
            del running[key]


def _begin(storage: Path, config: StudyConfig) -> None:
    """A driver from the creation of its study to its second trial."""
    folder = StudyFolder.create(storage, config)
    with folder.session() as session:
        folder.save_config(config, session)
        search = Search(folder, config, session, Silent())
        search.next_trial()
        search.next_trial()


def test_a_driver_killed_inside_any_write_before_its_first_epoch_loses_no_trial(
    study_config: Make, tmp_path: Path
) -> None:
    config = study_config()
    with Disk(0, lambda disk: None).watched() as counted:
        _begin(tmp_path / "whole", config)
    assert len(counted.done) > 20
    for at in range(1, len(counted.done) + 1):
        storage = tmp_path / str(at)
        with Disk(at, kill).watched(), pytest.raises(Killed):
            _begin(storage, config)
        if not (storage / "tiny/manifest.json").exists():
            StudyFolder.create(storage, config)  # nothing has taken its name
        folder = StudyFolder.open(storage, "tiny")
        with folder.session() as session:
            search = Search(folder, folder.config(), session, Silent())
            handed_out = [search.next_trial() for _ in range(6)]
        assert handed_out == ["t0000", "t0001", "t0002", "t0003", "t0004", None], at


def test_hundreds_of_trials_are_taken_up_within_seconds(
    study_folder: StudyFolder, study_config: Make
) -> None:
    config = study_config(
        ("study: {trials: 4", "study: {sampler: random, trials: 400"), ("epochs: 3", "epochs: 1")
    )
    first = Search(study_folder, config, 1, Silent())
    for _ in range(400):
        key = first.next_trial()
        assert key is not None
        _journal(study_folder.trial(key), 1, 0.5)
        _finish(first, study_folder, key, 1)
    started = time.process_time()
    again = Search(study_folder, config, 2, Silent())
    assert time.process_time() - started < 4
    assert again.to_run == 1
    assert [again.next_trial(), again.next_trial()] == ["t0400", None]


@pytest.mark.parametrize("seed", range(20))
def test_killed_at_random_and_resumed_no_epoch_is_lost_or_doubled(
    study_folder: StudyFolder, study_config: Make, seed: int
) -> None:
    config = study_config(("trials: 4", "trials: 10"), ("epochs: 3", "epochs: 8"))
    study_folder.save_config(config)
    random = np.random.default_rng(seed)
    session = 0
    while True:
        session += 1
        try:
            kill_after = int(random.integers(1, 25)) if session < 5 else None
            _play(study_folder, config, session, random, kill_after)
        except _Killed:
            continue
        break
    study = Study(study_folder, config)
    assert study.left == 0
    assert [t.key for t in study.trials] == [f"t{i:04d}" for i in range(11)]
    for trial in study.trials:
        lines = [e.epoch for e in Journal(trial.folder.journal).lines()]
        assert lines == list(range(1, len(lines) + 1))
        assert trial.state in ("finished", "stopped")
        if trial.state == "finished":
            assert len(lines) == 8
    rhos = [t.values["sam.rho"] for t in study.trials]
    assert len(set(rhos)) == len(rhos)
    rebuilt = Search(study_folder, config, session + 1, Silent())
    assert rebuilt.to_run == 0
    assert {t.state.name for t in rebuilt.sampler.study.trials} <= {"COMPLETE", "PRUNED"}
    assert len(rebuilt.sampler.study.trials) == 10


def test_a_trial_the_user_stops_is_pruned_and_told_to_the_scheduler(
    study_folder: StudyFolder, study_config: Make
) -> None:
    search = Search(study_folder, study_config(), 1, Silent())
    for _ in range(3):
        search.next_trial()
    search.stop_trial("t0001")
    search.stop_trial("t0001")
    assert not _epoch(search, study_folder, "t0001", 1, 0.9)
    assert study_folder.trial("t0001").outcome() == Outcome("stopped", 1, "by `samtune stop`")
    assert search.sampler.study.trials[0].state.name == "PRUNED"
    # ASHA has its value on the first rung: what is worse stops there by itself.
    assert not _epoch(search, study_folder, "t0002", 1, 0.1)
    assert study_folder.trial("t0002").outcome() == Outcome("stopped", 1)
    assert search.next_trial() == "t0003"
    again = Search(study_folder, study_config(), 1, Silent())
    assert [t.state.name for t in again.sampler.study.trials] == ["PRUNED", "PRUNED", "RUNNING"]


def test_the_user_stops_the_baseline_and_no_trial_in_its_last_epoch(
    study_folder: StudyFolder, study_config: Make
) -> None:
    search = Search(study_folder, study_config(), 1, Silent())
    for key in ("t0000", "t0001"):
        assert search.next_trial() == key
        search.stop_trial(key)
    assert not _epoch(search, study_folder, "t0000", 1, 0.5)
    assert study_folder.trial("t0000").outcome() == Outcome("stopped", 1, "by `samtune stop`")
    for epoch in (1, 2):
        search._values.setdefault("t0001", {})[epoch] = 0.5
    assert _epoch(search, study_folder, "t0001", 3, 0.5)
    assert study_folder.trial("t0001").outcome() is None


def test_as_trials_end_only_the_best_keep_their_weights(
    study_folder: StudyFolder, study_config: Make
) -> None:
    config = study_config(("study: {", "study: {keep_weights: 1, "))
    search = Search(study_folder, config, 1, Silent())
    for _ in range(5):
        search.next_trial()
    attempt = Attempt(1, 1)
    for number in range(5):
        trial = study_folder.trial(f"t000{number}")
        trial.weights(1, attempt).write_bytes(b"weights")
        trial.state(1, attempt).write_bytes(b"state")
        metrics = {"val_accuracy": 0.5}
        files = trial.state(1, attempt).name, "0", trial.weights(1, attempt).name, "0"
        Journal(trial.journal).append(Entry(1, 1, 1, metrics, 0.1, 0, *files))

    def has_weights() -> list[int]:
        trials = (study_folder.trial(f"t000{n}") for n in range(5))
        return [n for n, t in enumerate(trials) if any(t.root.glob("best-*"))]

    def end(number: int, state: EndState, value: float) -> list[int]:
        key = f"t000{number}"
        search._values[key] = {1: value}
        study_folder.trial(key).end(Outcome(state, 1))
        search.end(key, Outcome(state, 1), write=False)
        return has_weights()

    assert end(2, "finished", 0.5) == [0, 1, 2, 3, 4]
    assert end(0, "finished", 0.1) == [0, 1, 2, 3, 4]
    assert end(1, "finished", 0.7) == [0, 1, 3, 4]  # the second one was better until now
    assert end(3, "stopped", 0.2) == [0, 1, 4]
    assert end(4, "failed", 0.1) == [0, 1, 4]
    states = [n for n in range(5) if any(study_folder.trial(f"t000{n}").root.glob("state-*"))]
    assert states == [4]  # a failed trial can be taken up again
    whys = [study_folder.trial(f"t000{n}").let_go() for n in (2, 3)]
    assert whys == [LetGo(2, 2, 1), LetGo(3, 3, 1)]
