"""The one reading of a data set's test split, for the trials of a confirmation.

The searched study's manifest says who read it, when and for which confirmation, before the first
image is read. `test.json` in the confirmation's folder has what came of it.
"""

from __future__ import annotations

import getpass
import json
import socket
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime

from pydantic import FiniteFloat

from samtune.data import DataSplits, dataset_problems, open_dataset, unlocked_test_split
from samtune.errors import SamtuneError
from samtune.files import read_json, sync_folder, write_json
from samtune.study.folder import StudyFolder
from samtune.study.manifest import Reading
from samtune.study.study import Study, Trial
from samtune.study.weights import load_trained
from samtune.working_copy import current

TEST_FILE = "test.json"


@dataclass(frozen=True)
class HeldOutScore:
    """One trial on the test split.

    Attributes:
        epoch: whose weights were tried: those the trial counts by.
        metrics: `test_accuracy` and so on.
    """

    epoch: int
    metrics: dict[str, FiniteFloat]


@dataclass(frozen=True)
class HeldOutScores:
    """What the test split says: what `test.json` holds.

    Attributes:
        images: how many it has.
        trials: by key; a trial that has nothing to show has no score.
    """

    images: int = 0
    by: str = ""
    at: str = ""
    trials: dict[str, HeldOutScore] = field(default_factory=dict)


def held_out_scores(confirmation: StudyFolder) -> HeldOutScores:
    """What was read so far; nothing is read for it."""
    return read_json(current(confirmation.root / TEST_FILE), HeldOutScores) or HeldOutScores()


def check_unread(searched: StudyFolder, confirmation_id: str | None) -> None:
    """Holds a reading against the earlier ones.

    Args:
        confirmation_id: for which it is; None is one that is still to begin.

    Raises:
        SamtuneError: the test split was read for another confirmation of this study, or for this
            one, and what came of it is gone.
    """
    for reading in searched.manifest.test_readings:
        is_own = reading.confirmation_id == confirmation_id
        if is_own and not reading.done:
            continue  # it was killed, and is taken up again
        own = searched.root.parent / reading.confirmation / TEST_FILE
        if is_own and current(own).exists():
            continue
        raise SamtuneError(
            f"the test split was read at {reading.at} by {reading.by}, for "
            f"{reading.confirmation}: what is chosen or tried again after that is no longer "
            "judged by images that nobody has seen. If that is all the same to you, add "
            "--read-test-again"
        )


def read_test(searched: StudyFolder, confirmation: Study, *, again: bool = False) -> HeldOutScores:
    """The test split's word on every trial of a confirmation that ended well.

    A trial that has its score is not tried again, so that the table can be made anew at any time.

    Args:
        again: whether the user wants it although it was read before.

    Raises:
        SamtuneError: it was read before, or cannot be read, or a trial's weights are gone.
    """
    folder = confirmation.folder
    assert folder.study_id is not None
    known = held_out_scores(folder)
    due = [t for t in confirmation.trials if t.key not in known.trials and has_score(t)]
    if not due:
        return known
    if not again:
        check_unread(searched, folder.study_id)
    by, at = f"{getpass.getuser()}@{socket.gethostname()}", datetime.now(UTC)
    reading = Reading(by, at.isoformat(timespec="seconds"), folder.name, folder.study_id, False)
    searched.note_test_reading(reading)
    scores, images = dict(known.trials), known.images
    threads = confirmation.config.study.resources.cpus
    data, params = None, ""
    for trial in sorted(due, key=_dataset):
        if data is None or _dataset(trial) != params:
            params, data = _dataset(trial), _test_as_validation(trial)
        trained = load_trained(trial, threads, data)
        metrics = {
            name.replace("val_", "test_", 1): value for name, value in trained.evaluate().items()
        }
        scores[trial.key], images = HeldOutScore(trained.epoch, metrics), len(data.val)
    read = HeldOutScores(images, by, reading.at, dict(sorted(scores.items())))
    write_json(folder.root / TEST_FILE, asdict(read))
    sync_folder(folder.root)
    searched.note_test_reading(replace(reading, done=True))
    return read


def has_score(trial: Trial) -> bool:
    """Whether a trial has weights that it counts by; what failed has not."""
    return trial.state in ("finished", "diverged") and trial.can_win


def _test_as_validation(trial: Trial) -> DataSplits:
    """The trial's data set with the test split in the place of the validation split."""
    name = trial.config.dataset.name
    data = open_dataset(name, trial.config.dataset.params)
    with dataset_problems(name), unlocked_test_split():
        return replace(data, val=data.open_test())


def _dataset(trial: Trial) -> str:
    return json.dumps(trial.config.dataset.model_dump(mode="json"), sort_keys=True)
