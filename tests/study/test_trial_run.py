"""What is killed or broken in the middle of a trial costs at most the epoch in flight."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from samtune.config.schema import StudyConfig
from samtune.data import DataSplits
from samtune.errors import FencedError
from samtune.study.folder import StudyFolder
from samtune.study.journal import Journal
from samtune.study.study import Study
from samtune.study.trial_folder import TrialFolder
from samtune.study.trial_run import Progress, run_trial
from samtune.training.checkpoint import load_weights
from tests.study.saboteur import CPU, Killed, Saboteur, curve, run

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
