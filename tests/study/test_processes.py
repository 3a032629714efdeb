"""A trial in two processes: whatever happens to one of them, nothing hangs and nothing is left."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.config.trial import TrialConfig
from samtune.data import DataSplits, load_dataset
from samtune.errors import LostRankError
from samtune.study.journal import Journal
from samtune.study.trial_folder import Outcome, TrialFolder
from samtune.study.trial_log import output_to
from samtune.study.trial_run import Progress, run_trial
from samtune.training.processes import PRELOADED
from tests.data.files import write_image_folder
from tests.training.several import CPU, data_of, splits, trial

Make = Callable[..., StudyConfig]
PASSES = 8  # of an epoch: two in each of four steps


@pytest.fixture
def hand_out(tmp_path: Path, study_config: Make) -> Callable[[TrialConfig], TrialFolder]:
    def make(config: TrialConfig) -> TrialFolder:
        folder = TrialFolder(tmp_path / f"trials/t{len(list(tmp_path.rglob('t*'))) + 1:04d}")
        study = study_config().model_copy(update={"trial": config})
        folder.hand_out(record_of(study, folder.key, {}), 1)
        return folder

    return make


def disturbed(deed: str, *, at_pass: int = PASSES + 2, **settings: Any) -> TrialConfig:
    model = {"name": "several_disturbed", "deed": deed, "at_pass": at_pass, **settings}
    return trial(model)


def curve(progress: Iterable[Progress]) -> list[dict[str, float]]:
    return [p.metrics for p in progress if p.metrics]


def assert_near(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def assert_gone(pids: list[int]) -> None:
    def is_there(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
        except OSError:
            return False

    deadline = time.monotonic() + 20
    while any(map(is_there, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_there, pids)), pids


@pytest.mark.parametrize(("first", "then"), [(1, 2), (2, 1)])
def test_stopped_and_gone_on_in_another_number_of_processes_it_is_the_same_trial(
    hand_out: Callable[[TrialConfig], TrialFolder], first: int, then: int
) -> None:
    config = trial(
        {"name": "several_net", "dropout": 0.2}, {"micro_ascent": 4}, epochs=3, ema_decay=0.8
    )
    alone = list(run_trial(hand_out(config), 1, device=CPU, data=splits()))
    folder = hand_out(config)
    progress = run_trial(folder, 1, device=CPU, data=splits(), processes=first)
    next(progress)
    ranks = multiprocessing.active_children()
    assert len(ranks) == (0 if first == 1 else first)
    progress.close()
    assert_gone([rank.pid or 0 for rank in ranks])
    rest = list(run_trial(folder, 1, device=CPU, data=splits(), processes=then))
    assert [p.replayed for p in rest] == [True, False, False, False]
    assert rest[-1].outcome == Outcome("finished", 3)
    assert_near(curve(rest), curve(alone))
    assert multiprocessing.active_children() == []
    lines = Journal(folder.journal).lines()
    assert [(line.epoch, line.precision) for line in lines] == [(e, "fp32") for e in (1, 2, 3)]


@pytest.mark.parametrize(
    ("deed", "rank", "state", "reason"),
    [
        ("raise", 0, "failed", "ValueError: a depth is odd"),
        ("raise_own", 1, "failed", "RuntimeError: OwnError: a depth is odd"),
        ("run_out", 1, "out_of_memory", "OutOfMemoryError: no memory on the GPU"),
    ],
)
def test_what_one_rank_raises_is_the_trials_outcome(
    hand_out: Callable[[TrialConfig], TrialFolder],
    tmp_path: Path,
    deed: str,
    rank: int,
    state: str,
    reason: str,
) -> None:
    folder = hand_out(disturbed(deed, rank=rank))
    with output_to(tmp_path / "log"):
        *before, last = run_trial(folder, 1, device=CPU, data=splits(), processes=2)
    assert [p.epoch for p in before] == [1]
    assert last.outcome == folder.outcome() == Outcome(state, 2, reason)  # type: ignore[arg-type]
    assert multiprocessing.active_children() == []
    log = (tmp_path / "log").read_text()
    assert "several.py" in log  # where it was raised
    assert f"(raised in the process of rank {rank})" in log


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_is_a_lost_worker_and_costs_the_epoch_in_flight(
    hand_out: Callable[[TrialConfig], TrialFolder], rank: int
) -> None:
    folder = hand_out(disturbed("die", rank=rank))
    with pytest.raises(LostRankError, match=f"rank {rank} was killed by signal 9"):
        list(run_trial(folder, 1, device=CPU, data=splits(), processes=2))
    assert multiprocessing.active_children() == []
    assert folder.outcome() is None
    assert len(Journal(folder.journal).epochs()) == 1
    rest = list(run_trial(folder, 1, device=CPU, data=splits()))  # where nobody has that rank
    assert [p.replayed for p in rest] == [True, False, False]


def test_what_a_rank_raises_just_before_another_is_found_dead_is_no_outcome(
    hand_out: Callable[[TrialConfig], TrialFolder],
) -> None:
    """As a collective raises where one of those that it waits for has died."""
    folder = hand_out(disturbed("raise_before_another_dies", rank=None))
    with pytest.raises(LostRankError, match="rank 1 was killed by signal 9"):
        list(run_trial(folder, 1, device=CPU, data=splits(), processes=2))
    assert folder.outcome() is None


def train_and_tell(root: Path, connection: Connection) -> None:
    progress = run_trial(TrialFolder(root), 1, device=CPU, data=splits(), processes=2)
    next(progress)
    connection.send([rank.pid for rank in multiprocessing.active_children()])
    list(progress)


def test_ranks_end_with_the_process_that_has_started_them(
    hand_out: Callable[[TrialConfig], TrialFolder],
) -> None:
    """One of them waits for something, and the other one for it."""
    folder = hand_out(disturbed("wait"))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe()
    worker = context.Process(target=train_and_tell, args=(folder.root, theirs))
    worker.start()
    pids = ours.recv()
    assert len(pids) == 2
    time.sleep(0.5)  # the next epoch has begun
    worker.kill()
    worker.join()
    assert_gone(pids)


def test_images_are_read_once_for_all_ranks(
    hand_out: Callable[[TrialConfig], TrialFolder], tmp_path: Path
) -> None:
    files = write_image_folder(tmp_path / "images", {"cat": 12, "dog": 12})
    data: DataSplits = load_dataset(
        "image_folder", root=files, image_size=(6, 6), channels=1, in_memory="never", workers=1
    )
    config = trial(batch_size=8, epochs=1)
    found = [
        curve(run_trial(hand_out(config), 1, device=CPU, data=data, processes=processes))
        for processes in (1, 2)
    ]
    assert_near(*found)


def test_more_gpus_than_there_are_is_an_outcome_in_a_sentence(
    hand_out: Callable[[TrialConfig], TrialFolder],
) -> None:
    there = torch.cuda.device_count()
    gpu = torch.device("cuda")
    *_, last = run_trial(hand_out(trial()), 1, device=gpu, data=splits(), processes=there + 2)
    assert last.outcome is not None
    assert f"gpus is {there + 2}, and torch finds {there} here" in last.outcome.reason


def test_a_trial_that_is_done_starts_nobody(
    hand_out: Callable[[TrialConfig], TrialFolder],
) -> None:
    config = trial()
    folder = hand_out(config)
    first = list(run_trial(folder, 1, device=CPU, data=data_of(config)))
    (folder.root / "outcome.json").unlink()  # killed before it was written
    again = run_trial(folder, 1, device=CPU, data=data_of(config), processes=2)
    assert curve(again) == curve(first)
    assert multiprocessing.active_children() == []
