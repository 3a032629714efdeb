"""What is killed or broken in the middle of a trial costs at most the epoch in flight."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from samtune.config.schema import StudyConfig
from samtune.config.trials import record_of
from samtune.data import DataSplits, load_dataset
from samtune.errors import FencedError
from samtune.registry import MODELS, register_model
from samtune.study.folder import StudyFolder
from samtune.study.journal import Journal
from samtune.study.study import Study
from samtune.study.trial_folder import TrialFolder
from samtune.study.trial_run import Progress, run_trial
from samtune.training.checkpoint import load_weights

CPU = torch.device("cpu")
Make = Callable[..., StudyConfig]


class Saboteur(nn.Module):
    """A small net that does something at one of its training passes."""

    at_pass: int = 0
    deed: Callable[[Tensor], Tensor]
    passes: int = 0

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        if self.training:
            Saboteur.passes += 1
            if Saboteur.passes == Saboteur.at_pass:
                return Saboteur.deed(logits)
        return logits


if "saboteur" not in MODELS:
    register_model("saboteur")(Saboteur)


@pytest.fixture(scope="module")
def digits() -> DataSplits:
    return load_dataset("digits")


@pytest.fixture
def trial(study_folder: StudyFolder, study_config: Make) -> TrialFolder:
    """A trial of 5 epochs, two passes each, handed out under session 1."""
    config = study_config(
        ("name: wide_resnet, depth: 10, width_factor: 1", "name: saboteur"),
        ("epochs: 3, batch_size: 400", "epochs: 5, batch_size: 1200"),
        (", label_noise: 0.4", ""),
    )
    study_folder.save_config(config)
    folder = study_folder.trial("t0001")
    folder.hand_out(record_of(config, "t0001", {}), 1)
    Saboteur.at_pass = Saboteur.passes = 0
    return folder


def _run(trial: TrialFolder, data: DataSplits, session: int = 1) -> list[Progress]:
    return list(run_trial(trial, session, device=CPU, data=data))


def _curve(progress: list[Progress]) -> list[dict[str, float]]:
    return [p.metrics for p in progress if p.metrics]


@pytest.fixture
def undisturbed(trial: TrialFolder, digits: DataSplits, tmp_path: Path) -> list[dict[str, float]]:
    record = trial.record()
    assert record is not None
    other = TrialFolder(tmp_path / "undisturbed")
    other.hand_out(record, 1)
    return _curve(_run(other, digits))


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours runs after it."""


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

    after = _run(trial, digits)
    assert [p.replayed for p in after if p.metrics] == [True] * finished + [False] * (5 - finished)
    assert _curve(after) == undisturbed
    assert [e.epoch for e in Journal(trial.journal).lines()] == [1, 2, 3, 4, 5]
    assert after[-1].outcome is not None
    assert after[-1].outcome.state == "finished"


def test_a_finished_trial_run_again_trains_nothing(trial: TrialFolder, digits: DataSplits) -> None:
    first = _run(trial, digits)
    passes = Saboteur.passes
    again = _run(trial, digits)
    assert Saboteur.passes == passes
    assert _curve(again) == _curve(first)
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
    after = _run(trial, digits)
    assert _curve(after) == undisturbed
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
    after = _run(trial, digits)
    assert after[-1].outcome is not None
    assert [e.epoch for e in Journal(trial.journal).lines()] == [1, 1, 2, 3, 4, 5]


def test_only_the_last_two_states_stay(trial: TrialFolder, digits: DataSplits) -> None:
    _run(trial, digits)
    names = sorted(p.name for p in trial.root.glob("state-*.pt"))
    assert names == ["state-00004.pt", "state-00005.pt"]
    assert not list(trial.root.glob(".tmp-*"))


def test_the_best_weights_are_the_best_epochs(
    trial: TrialFolder, digits: DataSplits, study_folder: StudyFolder
) -> None:
    _run(trial, digits)
    best = Study(study_folder, study_folder.config()).trial("t0001").best_epoch
    assert best is not None
    _, about = load_weights(trial.best_weights, dict)
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
    progress = _run(trial, digits)
    outcome = progress[-1].outcome
    assert outcome is not None
    assert (outcome.state, outcome.epoch) == ("diverged", 3)
    assert "train_loss" in outcome.reason
    assert [p.epoch for p in progress if p.metrics] == [1, 2]
    assert load_weights(trial.best_weights, dict)[1]["epoch"] in (1, 2)


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
    outcome = _run(trial, digits)[-1].outcome
    assert outcome is not None
    assert (outcome.state, outcome.epoch) == (state, 2)
    assert str(error) in outcome.reason
    assert "Traceback" in capfd.readouterr().err
    assert trial.outcome() == outcome
