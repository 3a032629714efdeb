"""Weights are kept by rank over the whole study, and nothing that is needed is let go."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.data import DataSplits
from samtune.errors import FencedError, SamtuneError
from samtune.files import sha256_of
from samtune.study.doctor import examine
from samtune.study.folder import StudyFolder
from samtune.study.journal import Attempt, Entry, Journal
from samtune.study.keeping import Keeper, collect, spares
from samtune.study.study import Study
from samtune.study.trial_folder import EndState, LetGo, Outcome, TrialFolder, trial_key
from samtune.study.weights import load_trained
from tests.checkpointed import write_trial
from tests.faults.disk import Disk, kill
from tests.faults.saboteur import Killed, run

Make = Callable[..., StudyConfig]


def keeps(number: int | None, select: str = "best") -> tuple[str, str]:
    kept = "null" if number is None else str(number)
    return "study: {", f"study: {{keep_weights: {kept}, select: {select}, "


def begin(folder: StudyFolder, config: StudyConfig) -> None:
    """The study as its first session has left it, but for its trials."""
    folder.save_config(config)
    with folder.session() as session:
        assert session == 1


def kept_in(folder: StudyFolder) -> dict[str, list[str]]:
    """By trial, what lies there of weights and states."""
    found = {}
    for trial in folder.trials():
        names = sorted(path.name.rpartition("-a")[0] for path, _ in trial.checkpoints())
        found[trial.key] = names
    return found


def test_the_best_few_and_the_baseline_keep_their_weights_and_nobody_a_state(
    study_folder: StudyFolder, study_config: Make
) -> None:
    config = study_config(keeps(2))
    begin(study_folder, config)
    for number, value in enumerate([0.1, 0.7, 0.9, 0.3, 0.8]):
        write_trial(study_folder, config, number, [value, value - 0.05])
    found = collect(study_folder)
    assert kept_in(study_folder) == {
        "t0000": ["best-00001"],
        "t0001": [],
        "t0002": ["best-00001"],
        "t0003": [],
        "t0004": ["best-00001"],
    }
    why = {spare.trial.key: spare.why for spare in found}
    assert why == {
        "t0000": None,
        "t0001": LetGo(3, 4, 2),
        "t0002": None,
        "t0003": LetGo(4, 4, 2),
        "t0004": None,
    }
    # "state t0001 1" and "state t0001 2" are 13 bytes each, "weights t0001 1" 15.
    assert [spare.size for spare in found] == [26, 41, 26, 41, 26]
    assert collect(study_folder) == []
    assert examine(study_folder.root.parent, "tiny") == []


def test_looking_alone_removes_nothing(study_folder: StudyFolder, study_config: Make) -> None:
    write_trial(study_folder, study_config(), 1, [0.5])
    before = kept_in(study_folder)
    assert [spare.size for spare in collect(study_folder, remove=False)] == [13]
    assert kept_in(study_folder) == before


def test_what_may_go_on_keeps_everything(study_folder: StudyFolder, study_config: Make) -> None:
    config = study_config(keeps(1))
    begin(study_folder, config)
    write_trial(study_folder, config, 1, [0.9])
    states: list[EndState | None] = [None, "failed", "out_of_memory", "stopped", "diverged"]
    for number, state in enumerate(states, 2):
        write_trial(study_folder, config, number, [0.1, 0.2, 0.3], state)
    collect(study_folder)
    whole = ["best-00003", "state-00002", "state-00003"]
    assert [kept_in(study_folder)[f"t000{n}"] for n in range(2, 7)] == [whole] * 3 + [[], []]


def test_a_last_epoch_that_is_not_the_best_keeps_its_weights_in_its_state(
    study_folder: StudyFolder, study_config: Make
) -> None:
    config = study_config(keeps(2, "last"))
    begin(study_folder, config)
    write_trial(study_folder, config, 1, [0.9, 0.8, 0.7])
    write_trial(study_folder, config, 2, [0.4, 0.5, 0.6])
    write_trial(study_folder, config, 3, [0.95, 0.1, 0.2])
    write_trial(study_folder, config, 4, [0.99], "stopped")
    collect(study_folder)
    assert kept_in(study_folder) == {
        "t0001": ["best-00001", "state-00003"],
        "t0002": ["best-00003"],
        "t0003": [],
        "t0004": [],
    }
    assert study_folder.trial("t0004").let_go() == LetGo(None, 3, 2)
    assert examine(study_folder.root.parent, "tiny") == []


def test_all_weights_stay_where_that_is_wanted(
    study_folder: StudyFolder, study_config: Make
) -> None:
    config = study_config(keeps(None))
    begin(study_folder, config)
    for number in range(1, 9):
        write_trial(study_folder, config, number, [0.1 * number])
    collect(study_folder)
    assert set(map(tuple, kept_in(study_folder).values())) == {("best-00001",)}


@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_whatever_the_order_in_which_trials_end_the_same_are_kept(
    tmp_path: Path, study_config: Make, mode: str, step: int
) -> None:
    metric = {"max": "val_accuracy", "min": "val_loss"}[mode]
    values = [0.5, 0.9, 0.5, 0.7]  # of equals the earlier one is better
    wanted = {"max": {"t0002", "t0004"}, "min": {"t0001", "t0003"}}[mode]
    orders = list(itertools.permutations(range(4)))
    for i, order in enumerate(orders[::step]):
        config = study_config(keeps(2), ("name: tiny", f"name: tiny{i}"))
        search = config.study.model_copy(update={"metric": metric, "mode": mode})
        config = config.model_copy(update={"study": search})
        folder = StudyFolder.create(tmp_path, config)
        keeper = Keeper(Study(folder, config), 0)
        for n in order:
            trial = folder.trial(trial_key(n + 1))
            trial.hand_out(record_of(config, trial.key, {}), 0)
            path = trial.weights(1, Attempt(0, 1))
            path.write_bytes(b"weights")
            metrics = {metric: values[n]}
            entry = Entry(0, 1, 1, metrics, 0.1, 1, "s", "0", path.name, sha256_of(path))
            Journal(trial.journal).append(entry)
            trial.end(Outcome("finished", 1), 0)
            keeper.ended(trial.key, "finished", values[n])
        kept = {key for key, names in kept_in(folder).items() if names}
        assert kept == wanted, order
        assert list(spares(Study(folder, config))) == []
        assert [d for d in examine(tmp_path, folder.name) if not d.is_harmless] == []


def test_a_driver_that_was_taken_over_removes_nothing(
    study_folder: StudyFolder, study_config: Make
) -> None:
    config = study_config(keeps(1))
    begin(study_folder, config)
    with study_folder.session() as session:
        keeper = Keeper(Study(study_folder, config), session)
        write_trial(study_folder, config, 1, [0.5])
        before = kept_in(study_folder)
    with study_folder.session(), pytest.raises(FencedError):
        keeper.ended("t0001", "finished", 0.5)
    assert kept_in(study_folder) == before


def test_killed_inside_any_removal_no_weights_are_missing_without_a_word(
    study_folder: StudyFolder, study_config: Make, tmp_path: Path
) -> None:
    config = study_config(keeps(1))
    begin(study_folder, config)
    for number, value in enumerate([0.1, 0.7, 0.9, 0.8]):
        write_trial(study_folder, config, number, [value, value / 2])
    for at in range(1, 100):
        copy = tmp_path / "copy" / "tiny"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(study_folder.root, copy)
        folder = StudyFolder.open(copy.parent, "tiny")
        with Disk(at, kill).watched() as disk, contextlib.suppress(Killed):
            collect(folder)
        assert [d for d in examine(copy.parent, "tiny") if not d.is_harmless] == [], at
        collect(folder)
        assert examine(copy.parent, "tiny") == []
        kept = {key: names for key, names in kept_in(folder).items() if names}
        assert kept == {"t0000": ["best-00001"], "t0002": ["best-00001"]}
        if not disk.is_dead:
            break
    assert 12 < at < 99


def test_weights_that_were_not_kept_are_a_sentence_and_no_damage(
    trial: TrialFolder, digits: DataSplits, study_folder: StudyFolder
) -> None:
    run(trial, digits)
    config = study_folder.config()
    begin(study_folder, config)
    trial.note_let_go(LetGo(12, 24, 5))
    for path, _ in trial.checkpoints():
        path.unlink()
    (kept,) = Study(study_folder, config).trials
    with pytest.raises(SamtuneError) as caught:
        load_trained(kept)
    assert str(caught.value) == (
        "the weights of trial t0001 were not kept: it was number 12 of 24, and study.keep_weights "
        f"is 5. To have them, train it again: `samtune train {study_folder.root}/study.yaml --name "
        "tiny-t0001`"
    )
    assert examine(study_folder.root.parent, "tiny") == []
    record = trial.record()
    assert record is not None
    trial.reopen()
    trial.hand_out(record, 1)
    run(trial, digits)
    (again,) = Study(study_folder, config).trials
    assert load_trained(again).epoch == again.selected_epoch.epoch  # type: ignore[union-attr]
    assert trial.let_go() is None


def test_states_stay_where_the_weights_are_damaged(
    study_folder: StudyFolder, study_config: Make
) -> None:
    trial = write_trial(study_folder, study_config(), 1, [0.5, 0.6])
    (weights,) = trial.root.glob("best-*")
    weights.write_bytes(b"")
    assert collect(study_folder) == []
    assert kept_in(study_folder)["t0001"] == ["best-00002", "state-00001", "state-00002"]
