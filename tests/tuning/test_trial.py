"""The Ray worker as an object of this process: a storage that fails, and comes back."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from operator import gt
from pathlib import Path
from typing import Any

import pytest

from samtune.config import StudyConfig, record_of
from samtune.study import Study, StudyFolder
from samtune.tuning import trial as worker
from samtune.tuning.trial import TrialActor
from tests.data.files import write_image_folder


@pytest.fixture
def start(
    study_folder: StudyFolder,
    study_config: Callable[..., StudyConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., TrialActor]]:
    """Hands out a trial and makes a worker for it."""
    monkeypatch.setattr(worker, "RETRY_EVERY_S", 0.0)
    with study_folder.session() as session:

        def new(**settings: Any) -> TrialActor:
            trial = study_folder.trial("t0001")
            trial.hand_out(record_of(study_config(), "t0001", {}), session)
            config = {
                "study": str(study_folder.root),
                "key": "t0001",
                "study_id": study_folder.study_id,
                "session": session,
                "cpus": 1,
                "gpus": 0,
                "storage_wait": 600.0,
                "epoch_timeout": "auto",
            }
            return TrialActor({**config, **settings})

        yield new


def _fresh(actor: TrialActor) -> dict[str, Any]:
    """The next result that is not a replay."""
    while (result := actor.step())["replayed"]:
        assert "fault" not in result
    return result


@pytest.mark.parametrize("what", ["trials", "manifest.json"])  # the log's, the training's fault
def test_a_storage_that_comes_back_costs_no_epoch(
    start: Callable[..., TrialActor],
    study_folder: StudyFolder,
    study_config: Callable[..., StudyConfig],
    what: str,
) -> None:
    actor = start()
    trials, away = study_folder.root / what, study_folder.root / "away"
    assert actor.step()["epoch"] == 1
    trials.rename(away)
    for _ in range(2):
        fault = actor.step()
        assert "t0001" in fault["fault"]
        assert not fault["done"]
    away.rename(trials)
    assert _fresh(actor)["epoch"] == 2
    assert _fresh(actor)["epoch"] == 3
    last = _fresh(actor)
    assert (last["done"], last["outcome"]["state"]) == (True, "finished")
    epochs = Study(study_folder, study_config()).trial("t0001").epochs
    assert [e.epoch for e in epochs] == [1, 2, 3]
    actor.cleanup()


def test_a_storage_that_stays_away_leaves_the_trial_without_an_outcome(
    start: Callable[..., TrialActor],
    study_folder: StudyFolder,
    study_config: Callable[..., StudyConfig],
) -> None:
    actor = start(storage_wait=0.0)
    assert actor.step()["epoch"] == 1
    trials, away = study_folder.root / "trials", study_folder.root / "away"
    trials.rename(away)
    fault = actor.step()
    assert fault["done"]
    assert fault["outcome"] is None
    away.rename(trials)
    study = Study(study_folder, study_config())
    assert study.trial("t0001").outcome is None
    assert study.left == 5
    actor.cleanup()


def test_a_worker_of_an_older_session_stops_without_an_outcome(
    start: Callable[..., TrialActor], study_folder: StudyFolder
) -> None:
    actor = start(session=0)
    fault = actor.step()
    assert "handed out again" in fault["fault"]
    assert fault["done"]
    assert study_folder.trial("t0001").outcome() is None
    actor.cleanup()


def _resources() -> tuple[int, int, int]:
    """Open files, threads and child processes of this process."""
    children = Path("/proc/self/task").glob("*/children")
    return (
        len(list(Path("/proc/self/fd").iterdir())),
        len(list(Path("/proc/self/task").iterdir())),
        sum(len(path.read_text().split()) for path in children),
    )


def test_a_worker_used_again_and_again_holds_no_more_than_before(
    start: Callable[..., TrialActor],
    study_folder: StudyFolder,
    study_config: Callable[..., StudyConfig],
    tmp_path: Path,
) -> None:
    images = write_image_folder(tmp_path / "images", {"cat": 12, "dog": 12})
    config = study_config(
        (
            "name: digits, label_noise: 0.4",
            f"name: image_folder, root: {images}, image_size: [8, 8], in_memory: never, workers: 2",
        ),
        ("epochs: 3, batch_size: 400", "epochs: 1, batch_size: 20"),
    )
    actor, most = start(), (0, 0, 0)
    for number in range(2, 8):
        trial = study_folder.trial(f"t{number:04d}")
        trial.hand_out(record_of(config, trial.key, {}), study_folder.manifest.session)
        assert actor.reset_config({**actor.config, "key": trial.key})
        assert [_fresh(actor)["epoch"], _fresh(actor)["outcome"]["state"]] == [1, "finished"]
        gc.collect()
        if number < 5:  # libraries open what they need in the first ones
            most = tuple(map(max, most, _resources()))
    deadline = time.monotonic() + 10
    while any(map(gt, held := _resources(), most)) and time.monotonic() < deadline:
        time.sleep(0.1)  # for what ends a moment after it was told to
    assert not any(map(gt, held, most)), (held, most)
    actor.cleanup()
