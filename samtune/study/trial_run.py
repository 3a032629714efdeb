"""One trial from its folder to its end: train, write down, tell.

`run_trial` is what `samtune train` and every Ray worker drive. For each epoch it writes, in this
order, the training state, the weights if they are the best so far, and the journal line; only then
does it yield the epoch. Killed anywhere, the next call takes up where the journal ends.
"""

from __future__ import annotations

import contextlib
import functools
import json
import traceback
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from samtune.config.schema import BEST
from samtune.data import DataSplits, load_dataset
from samtune.study.journal import Entry, Journal, now_ms
from samtune.study.trial_folder import Outcome, TrialFolder
from samtune.training.checkpoint import load_state, save_state, save_weights
from samtune.training.loop import EpochResult, train
from samtune.training.state import TrainingState, set_up

KEPT_STATES = 2


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
) -> Generator[Progress]:
    """Runs or continues a trial that was handed out under `session`.

    Every finished epoch is yielded once, those of earlier attempts first. What the trial's own code
    raises ends the trial, not the caller: the last `Progress` carries the outcome. What comes from
    outside (a lost disk, a newer session) is raised.

    Args:
        data: the trial's data set, where the caller has it at hand.

    Raises:
        FencedError: a newer session has taken the trial over.
        OSError: the folder cannot be written.
    """
    journal = Journal(folder.journal)
    folder.check_session(session)
    journal.repair()
    done = journal.epochs()
    for entry in done:
        yield Progress(entry.epoch, entry.metrics, entry.duration_s, entry.precision, replayed=True)
    outcome = folder.outcome()
    if outcome is None:
        try:
            yield from _train(folder, journal, session, device, data)
            return
        except (torch.OutOfMemoryError, MemoryError) as error:
            outcome = _outcome_of("out_of_memory", error, journal)
        except _TrialCodeError as failed:
            outcome = _outcome_of("failed", failed.cause, journal)
        folder.check_session(session)
        folder.end(outcome)
    yield Progress(outcome.epoch, outcome=outcome)


def _train(
    folder: TrialFolder,
    journal: Journal,
    session: int,
    device: torch.device,
    data: DataSplits | None,
) -> Iterator[Progress]:
    record = folder.record()
    assert record is not None
    config = record.config
    with _trial_code():
        splits = data or _dataset(config.dataset.name, json.dumps(config.dataset.params))
        state = set_up(config, splits, device)
        _restore(state, folder, journal, config.hash)
        results = train(state, config, splits, device)

    attempt = 1 + max((line.attempt for line in journal.lines()), default=0)
    known = {entry.epoch for entry in journal.epochs()}
    better = BEST[record.mode]
    best = better((entry.metrics[record.metric] for entry in journal.epochs()), default=None)
    while True:
        with _trial_code():
            result = next(results, None)
        folder.check_session(session)
        if result is None:
            outcome = Outcome("finished", state.epoch)
            break
        if not_finite := result.not_finite:
            reason = f"{', '.join(not_finite)} not finite in epoch {result.epoch}"
            outcome = Outcome("diverged", result.epoch, reason)
            break
        value = result.metrics[record.metric]
        is_best = best is None or better(best, value) != best
        if is_best:
            best = value
        _write_epoch(folder, journal, session, attempt, state, result, config.hash, is_best)
        if result.epoch not in known:
            yield Progress(result.epoch, result.metrics, result.duration_s, state.precision)
    folder.end(outcome)
    yield Progress(outcome.epoch, outcome=outcome)


@functools.lru_cache(maxsize=1)
def _dataset(name: str, params: str) -> DataSplits:
    """A data set, read once by a worker whose trials all use the same."""
    return load_dataset(name, **json.loads(params))


def _write_epoch(
    folder: TrialFolder,
    journal: Journal,
    session: int,
    attempt: int,
    state: TrainingState,
    result: EpochResult,
    config_hash: str,
    is_best: bool,
) -> None:
    path = folder.state(result.epoch)
    device = next(state.model.parameters()).device.type
    computed = {"device": device, "precision": state.precision}
    digest = save_state(path, {**state.state_dict(), "config_hash": config_hash, **computed})
    if is_best:
        about = {
            "epoch": result.epoch,
            "metrics": result.metrics,
            "trial": folder.key,
            **computed,
        }
        save_weights(folder.best_weights, state.evaluated.state_dict(), about)
    journal.append(
        Entry(
            session=session,
            attempt=attempt,
            epoch=result.epoch,
            metrics=result.metrics,
            duration_s=round(result.duration_s, 4),
            time_ms=now_ms(),
            state=path.name,
            sha256=digest,
            precision=state.precision,
        )
    )
    # Newer states than this one are damaged, else training would have begun from them.
    kept = {folder.state(result.epoch - back) for back in range(KEPT_STATES)}
    for other in set(folder.root.glob("state-*.pt")) - kept:
        other.unlink(missing_ok=True)


def _restore(state: TrainingState, folder: TrialFolder, journal: Journal, config_hash: str) -> None:
    """Loads the newest whole state of this very configuration; none at all means epoch 1."""
    for entry in sorted(journal.lines(), key=lambda line: line.epoch, reverse=True):
        saved = load_state(folder.root / Path(entry.state).name, entry.sha256)
        if saved is not None and saved["config_hash"] == config_hash:
            state.load_state_dict(saved)
            return


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
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except torch.AcceleratorError:
        raise  # the GPU's context is broken for good: only another process can go on
    except Exception as error:  # foreign code: anything can come
        raise _TrialCodeError(error) from error


def _outcome_of(state: Any, error: BaseException, journal: Journal) -> Outcome:
    traceback.print_exception(error)
    epoch = len(journal.epochs()) + 1
    return Outcome(state, epoch, f"{type(error).__name__}: {' '.join(str(error).split())}"[:500])
