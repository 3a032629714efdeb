"""One trial from its folder to its end: train, write down, tell.

`run_trial` is what `samtune train` and every Ray worker drive. It yields an epoch only once it is
written down (`checkpoints`). Killed anywhere, the next call takes up where the journal ends.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import traceback
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from samtune.data import DataSplits, load_dataset
from samtune.errors import LostRankError, LostReaderError
from samtune.study.checkpoints import Checkpoints, restore
from samtune.study.journal import Attempt, Journal
from samtune.study.trial_folder import Outcome, TrialFolder
from samtune.study.used_data import note_data
from samtune.training.processes import train_together
from samtune.training.state import set_up


@dataclass(frozen=True)
class Progress:
    """What a running trial tells.

    Attributes:
        epoch: the last finished epoch; 0 if the trial ended before one.
        metrics: that epoch's; empty where `outcome` alone is told.
        precision: what the model computed in.
        replayed: the epoch was finished by an earlier attempt.
        outcome: how the trial ended, on the last one only.
    """

    epoch: int
    metrics: dict[str, float] = field(default_factory=dict)
    duration_s: float = 0.0
    precision: str = ""
    replayed: bool = False
    outcome: Outcome | None = None


def run_trial(
    folder: TrialFolder,
    session: int,
    *,
    device: torch.device,
    data: DataSplits | None = None,
    processes: int = 1,
) -> Generator[Progress]:
    """Runs or continues a trial that was handed out under `session`.

    Every finished epoch is yielded once, those of earlier attempts first. What the trial's own code
    raises ends the trial, not the caller: the last `Progress` carries the outcome. What comes from
    outside (a lost disk, a newer session) is raised.

    Args:
        data: the trial's data set, where the caller has it at hand.
        processes: how many compute it together, each on a GPU of its own where `device` is one.

    Raises:
        FencedError: a newer session or attempt has taken the trial over.
        LostRankError: one of the processes was killed.
        LostReaderError: a process that reads images was killed.
        OSError: the folder cannot be written.
    """
    journal = Journal(folder.journal)
    folder.fetch()
    folder.check_session(session)
    if damage := journal.repair():
        print(f"{folder.journal}: {damage}", file=sys.stderr)
    outcome, wrong = folder.checked_outcome(len(journal.epochs()))
    if wrong:
        aside = folder.set_outcome_aside()
        print(f"outcome.json {wrong}; it is kept as {aside.name}", file=sys.stderr)
    attempt = None if outcome else journal.begin(session)
    if attempt:
        folder.remove_leftovers()
    for entry in journal.epochs():
        yield Progress(entry.epoch, entry.metrics, entry.duration_s, entry.precision, replayed=True)
    if attempt:
        try:
            outcome = yield from _train(folder, journal, attempt, device, data, processes)
        except (torch.OutOfMemoryError, MemoryError) as error:
            outcome = _outcome_of("out_of_memory", error, journal)
        except _TrialCodeError as failed:
            outcome = _outcome_of("failed", failed.cause, journal)
        folder.end(outcome, session, attempt)
    assert outcome is not None
    yield Progress(outcome.epoch, outcome=outcome)


def _train(
    folder: TrialFolder,
    journal: Journal,
    attempt: Attempt,
    device: torch.device,
    data: DataSplits | None,
    processes: int,
) -> Generator[Progress, None, Outcome]:
    """Yields the epochs that are new, and returns how it ended."""
    record = folder.record()
    assert record is not None
    config = record.config
    with _trial_code():
        splits = data or _dataset(config.dataset.name, json.dumps(config.dataset.params))
        if config.training.with_validation:
            splits = splits.with_validation()
    note_data(folder.study, config, splits)
    with _trial_code():
        # Several processes have the GPUs to themselves: what they reach is kept here beside them.
        state = set_up(config, splits, device if processes == 1 else torch.device("cpu"))
        restore(state, folder, journal.lines(), config.hash)
        results = train_together(state, config, splits, device, processes)

    checkpoints = Checkpoints(folder, journal, attempt, record)
    with contextlib.closing(results):
        while True:
            with _trial_code():
                result = next(results, None)
            if result is None:
                return Outcome("finished", state.epoch)
            if not_finite := result.not_finite:
                reason = f"{', '.join(not_finite)} not finite in epoch {result.epoch}"
                return Outcome("diverged", result.epoch, reason)
            folder.check_session(attempt.session)
            if checkpoints.write(state, result):
                yield Progress(result.epoch, result.metrics, result.duration_s, state.precision)


@functools.lru_cache(maxsize=1)
def _dataset(name: str, params: str) -> DataSplits:
    """A data set, read once by a worker whose trials all use the same."""
    return load_dataset(name, **json.loads(params))


class _TrialCodeError(Exception):
    """Something the model, the data set or torch raised."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@contextlib.contextmanager
def _trial_code() -> Iterator[None]:
    """Tells what the trial's own code raises from what the folder's writing raises."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, LostRankError):
        raise
    except torch.AcceleratorError:
        raise  # the GPU's context is broken for good: only another process can go on
    except Exception as error:  # foreign code: anything can come
        # torch has no type for it, and raises it wherever the training just is.
        if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):
            raise LostReaderError(
                f"{' '.join(str(error).split())} The training goes on after its last epoch; where "
                "memory is short, read with fewer processes: dataset.workers"
            ) from error
        raise _TrialCodeError(error) from error


def _outcome_of(state: Any, error: BaseException, journal: Journal) -> Outcome:
    traceback.print_exception(error)
    epoch = len(journal.epochs()) + 1
    return Outcome(state, epoch, f"{type(error).__name__}: {' '.join(str(error).split())}"[:500])
