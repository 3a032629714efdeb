"""What is killed or broken in the middle of a trial costs at most the epoch in flight."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.data import DataSplits, load_dataset
from samtune.errors import FencedError, LostReaderError
from samtune.study.folder import StudyFolder
from samtune.study.journal import Journal
from samtune.study.study import Study
from samtune.study.trial_folder import Outcome, TrialFolder
from samtune.study.trial_run import Progress, run_trial
from samtune.training.checkpoint import load_weights
from tests.data.files import write_image_folder
from tests.faults.saboteur import CPU, Killed, Saboteur, curve, run

Make = Callable[..., StudyConfig]


def _kill(_: Tensor) -> Tensor:
    raise Killed


@pytest.mark.parametrize("at_pass", range(1, 11))
def test_killed_anywhere_it_goes_on_as_if_never_stopped(
    trial: TrialFolder, digits: DataSplits, undisturbed: list[dict[str, float]], at_pass: int
) -> None:
    Saboteur.passes, Saboteur.at_pass, Saboteur.deed = 0, at_pass, staticmethod(_kill)
    before: list[Progress] = []
    with pytest.raises(Killed):
        before.extend(run_trial(trial, 1, device=CPU, data=digits))
    finished = (at_pass - 1) // 2
    assert len(Journal(trial.journal).epochs()) == finished

    after = run(trial, digits)
    assert [p.replayed for p in after if p.metrics] == [True] * finished + [False] * (5 - finished)
    assert curve(after) == undisturbed
    assert [e.epoch for e in Journal(trial.journal).lines()] == [1, 2, 3, 4, 5]
    assert after[-1].outcome is not None
    assert after[-1].outcome.state == "finished"


def test_a_finished_trial_run_again_trains_nothing(trial: TrialFolder, digits: DataSplits) -> None:
    first = run(trial, digits)
    passes = Saboteur.passes
    again = run(trial, digits)
    assert Saboteur.passes == passes
    assert curve(again) == curve(first)
    assert again[-1].outcome == first[-1].outcome


@pytest.mark.parametrize("damaged", [1, 2])
def test_damaged_states_cost_epochs_but_no_result(
    trial: TrialFolder, digits: DataSplits, undisturbed: list[dict[str, float]], damaged: int
) -> None:
    progress = run_trial(trial, 1, device=CPU, data=digits)
    for _ in range(3):
        next(progress)
    progress.close()
    for path in sorted(trial.root.glob("state-*.pt"))[-damaged:]:
        path.write_bytes(path.read_bytes()[:100])
    after = run(trial, digits)
    assert curve(after) == undisturbed
    assert [e.epoch for e in Journal(trial.journal).epochs()] == [1, 2, 3, 4, 5]


def test_a_state_of_another_configuration_is_not_taken(
    trial: TrialFolder, digits: DataSplits, study_config: Make
) -> None:
    progress = run_trial(trial, 1, device=CPU, data=digits)
    next(progress)
    progress.close()
    record = trial.record()
    assert record is not None
    training = record.config.training.model_copy(update={"seed": 7})
    config = record.config.model_copy(update={"training": training})
    trial.hand_out(record.model_copy(update={"config": config}), 1)
    after = run(trial, digits)
    assert after[-1].outcome is not None
    assert [e.epoch for e in Journal(trial.journal).lines()] == [1, 1, 2, 3, 4, 5]


def test_only_the_last_two_states_stay(trial: TrialFolder, digits: DataSplits) -> None:
    run(trial, digits)
    names = sorted(p.name for p in trial.root.glob("state-*.pt"))
    assert [name[:14] for name in names] == ["state-00004-a1", "state-00005-a1"]
    assert len(list(trial.root.glob("best-*"))) == 1
    assert not trial.leftovers()


def test_the_best_weights_are_the_best_epochs(
    trial: TrialFolder, digits: DataSplits, study_folder: StudyFolder
) -> None:
    run(trial, digits)
    best = Study(study_folder, study_folder.config()).trial("t0001").best_epoch
    assert best is not None
    assert trial.is_whole(best.weights, best.weights_sha256)
    _, about = load_weights(trial.file(best.weights), dict)
    assert about["epoch"] == best.epoch
    assert about["metrics"] == best.metrics


def test_a_newer_session_stops_the_older_worker_before_it_writes(
    trial: TrialFolder, digits: DataSplits
) -> None:
    progress = run_trial(trial, 1, device=CPU, data=digits)
    next(progress)
    record = trial.record()
    assert record is not None
    trial.hand_out(record, 2)
    written = trial.journal.read_bytes()
    files = sorted(p.name for p in trial.root.iterdir())
    with pytest.raises(FencedError):
        next(progress)
    assert trial.journal.read_bytes() == written
    assert sorted(p.name for p in trial.root.iterdir()) == files


def test_moved_and_with_the_clock_set_back_it_goes_on_as_if_nothing_were(
    trial: TrialFolder,
    digits: DataSplits,
    undisturbed: list[dict[str, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    progress = run_trial(trial, 1, device=CPU, data=digits)
    for _ in range(3):
        next(progress)
    progress.close()
    (tmp_path / "elsewhere").mkdir()
    trial.root.parent.parent.rename(tmp_path / "elsewhere/renamed")
    moved = StudyFolder(tmp_path / "elsewhere/renamed").trial("t0001")
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    after = run(moved, digits)
    assert curve(after) == undisturbed
    assert [p.replayed for p in after if p.metrics] == [True] * 3 + [False] * 2
    times = [entry.time_ms for entry in Journal(moved.journal).epochs()]
    assert times[2] > times[3] == 0


def _take_over(trial: TrialFolder) -> None:
    record = trial.record()
    assert record is not None
    trial.hand_out(record, 2)


def test_an_older_session_says_no_more_how_the_trial_ended(
    trial: TrialFolder, digits: DataSplits
) -> None:
    def taken_over_and_broken(_: Tensor) -> Tensor:
        _take_over(trial)
        raise ValueError("a failure of the old worker")

    Saboteur.at_pass, Saboteur.deed = 3, staticmethod(taken_over_and_broken)
    with pytest.raises(FencedError):
        run(trial, digits)
    assert not (trial.root / "outcome.json").exists()

    progress = run_trial(trial, 2, device=CPU, data=digits)
    while next(progress).epoch < 5:
        pass
    record = trial.record()
    assert record is not None
    trial.hand_out(record, 3)
    with pytest.raises(FencedError):
        next(progress)
    assert not (trial.root / "outcome.json").exists()


def test_an_outcome_written_too_late_does_not_count(trial: TrialFolder, digits: DataSplits) -> None:
    trial.end(Outcome("failed", 1, "a worker that was held up"), 1)
    assert trial.outcome() is not None
    _take_over(trial)
    assert trial.outcome() is None
    assert run(trial, digits, session=2)[-1].outcome == Outcome("finished", 5)
    with pytest.raises(FencedError):
        trial.end(Outcome("stopped", 1), 1)
    assert trial.outcome() == Outcome("finished", 5)


@pytest.mark.parametrize(
    "content", ["", '{"state":"finished","epoch":9,"reason":"","session":1}'], ids=["empty", "more"]
)
def test_an_outcome_that_does_not_hold_is_kept_beside_and_the_trial_goes_on(
    trial: TrialFolder,
    digits: DataSplits,
    undisturbed: list[dict[str, float]],
    content: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    progress = run_trial(trial, 1, device=CPU, data=digits)
    next(progress)
    progress.close()
    (trial.root / "outcome.json").write_text(content)
    after = run(trial, digits)
    assert curve(after) == undisturbed
    assert after[-1].outcome == trial.outcome() == Outcome("finished", 5)
    assert (trial.root / "outcome.json.damaged-1").read_text() == content
    assert "outcome.json" in capfd.readouterr().err


def test_a_damaged_journal_costs_epochs_but_no_result(
    trial: TrialFolder,
    digits: DataSplits,
    undisturbed: list[dict[str, float]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    run(trial, digits)
    raw = trial.journal.read_bytes()
    lines = raw.splitlines(keepends=True)
    trial.journal.write_bytes(b"".join([*lines[:3], *lines[4:]]))  # epoch 3's is gone
    after = run(trial, digits)
    assert [p.replayed for p in after if p.metrics] == [True, True, False, False, False]
    assert curve(after) == undisturbed
    assert after[-1].outcome == Outcome("finished", 5)
    assert "line 4 does not follow the line before it" in capfd.readouterr().err
    assert trial.journal.with_name("epochs.jsonl.damaged-1").exists()
    assert [e.metrics for e in Journal(trial.journal).epochs()] == undisturbed


def test_best_weights_that_were_lost_are_written_again_on_the_way(
    trial: TrialFolder, digits: DataSplits
) -> None:
    run(trial, digits)
    best = max(Journal(trial.journal).epochs(), key=lambda e: e.metrics["val_accuracy"])
    weights, _ = load_weights(trial.file(best.weights), dict)
    for path, _ in trial.checkpoints():
        path.write_bytes(b"")
    (trial.root / "outcome.json").unlink()
    run(trial, digits)
    again = Journal(trial.journal).epochs()[best.epoch - 1]
    assert again.metrics == best.metrics
    assert trial.is_whole(again.weights, again.weights_sha256)
    rewritten, _ = load_weights(trial.file(again.weights), dict)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in rewritten.items())


def test_a_diverged_trial_keeps_its_epochs_and_its_best(
    trial: TrialFolder, digits: DataSplits
) -> None:
    Saboteur.at_pass, Saboteur.deed = 5, staticmethod(lambda logits: logits * math.nan)
    progress = run(trial, digits)
    outcome = progress[-1].outcome
    assert outcome is not None
    assert (outcome.state, outcome.epoch) == ("diverged", 3)
    assert "train_loss" in outcome.reason
    assert [p.epoch for p in progress if p.metrics] == [1, 2]
    (best,) = trial.root.glob("best-*")
    assert load_weights(best, dict)[1]["epoch"] in (1, 2)


def _raiser(error: Exception) -> Iterator[Callable[[Tensor], Tensor]]:
    def deed(_: Tensor) -> Tensor:
        raise error

    yield staticmethod(deed)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ValueError("depth is odd"), "failed"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (MemoryError("no memory"), "out_of_memory"),
    ],
)
def test_what_the_trials_own_code_raises_is_its_outcome(
    trial: TrialFolder,
    digits: DataSplits,
    capfd: pytest.CaptureFixture[str],
    error: Exception,
    state: str,
) -> None:
    Saboteur.at_pass, Saboteur.deed = 3, next(_raiser(error))
    outcome = run(trial, digits)[-1].outcome
    assert outcome is not None
    assert (outcome.state, outcome.epoch) == (state, 2)
    assert str(error) in outcome.reason
    assert "Traceback" in capfd.readouterr().err
    assert trial.outcome() == outcome


def test_a_killed_reader_of_images_is_no_fault_of_the_trial(
    study_folder: StudyFolder, study_config: Make, tmp_path: Path
) -> None:
    write_image_folder(tmp_path / "images", {"cat": 12, "dog": 12})
    streamed = load_dataset(
        "image_folder",
        root=tmp_path / "images",
        image_size=(8, 8),
        channels=1,
        in_memory="never",
        workers=2,
    )
    config = study_config(
        ("name: wide_resnet, depth: 10, width_factor: 1", "name: saboteur"),
        ("epochs: 3, batch_size: 400", "epochs: 2, batch_size: 8"),
    )
    trial, other = study_folder.trial("t0001"), TrialFolder(tmp_path / "undisturbed")
    for folder in (trial, other):
        folder.hand_out(record_of(config, "t0001", {}), 1)
    Saboteur.at_pass, Saboteur.passes = 0, 0
    undisturbed = curve(run(other, streamed))

    def kill_the_readers(logits: Tensor) -> Tensor:
        readers = multiprocessing.active_children()
        assert readers
        for reader in readers:
            reader.kill()
        return logits

    Saboteur.at_pass, Saboteur.passes, Saboteur.deed = 6, 0, staticmethod(kill_the_readers)
    with pytest.raises(LostReaderError, match="killed by signal|exited unexpectedly"):
        run(trial, streamed)
    assert trial.outcome() is None
    assert multiprocessing.active_children() == []
    assert len(Journal(trial.journal).epochs()) == 1
    assert curve(run(trial, streamed)) == undisturbed
