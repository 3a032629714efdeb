"""A trial's files after each epoch: what is written, what is kept, and where training goes on.

A file is named after the attempt that wrote it and counts only where a line of the journal names it
with its digest. A worker that was held up while a newer one took the trial over can so add files
that nobody reads, and change none.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from samtune.config.schema import KEPT_STATES
from samtune.config.trial import BEST, TrialRecord
from samtune.files import remove
from samtune.study.journal import Attempt, Entry, Journal, now_ms
from samtune.study.trial_folder import TrialFolder
from samtune.training.checkpoint import load_state, save_state, save_weights
from samtune.training.loop import EpochResult
from samtune.training.state import TrainingState


class Checkpoints:
    """Writes what one attempt finishes.

    Args:
        attempt: one that has begun in the journal.
    """

    def __init__(
        self, folder: TrialFolder, journal: Journal, attempt: Attempt, record: TrialRecord
    ) -> None:
        self._folder = folder
        self._journal = journal
        self._attempt = attempt
        self._record = record
        self._epochs = {entry.epoch: entry for entry in journal.epochs()}
        self._best: Entry | None = BEST[record.mode](
            self._epochs.values(), key=lambda entry: entry.metrics[record.metric], default=None
        )
        best = self._best
        self._best_is_whole = best is not None and folder.is_whole(
            best.weights, best.weights_sha256
        )

    def write(self, state: TrainingState, result: EpochResult) -> bool:
        """Writes down an epoch; returns whether it is new, not one that was trained again.

        In this order: the training state, the weights if they are the best so far, the journal's
        line. Then what they supersede is removed.

        Raises:
            FencedError: a newer attempt has taken the trial over.
            OSError: the disk does not take it; what was there is whole.
        """
        folder, attempt, epoch = self._folder, self._attempt, result.epoch
        self._journal.check(attempt)
        computed = {"device": state.device.type, "precision": state.precision}
        about = {"config_hash": self._record.config.hash, **computed}
        path = folder.state(epoch, attempt)
        entry = Entry(
            session=attempt.session,
            attempt=attempt.number,
            worker=attempt.worker,
            epoch=epoch,
            metrics=result.metrics,
            duration_s=round(result.duration_s, 4),
            time_ms=now_ms(),
            precision=state.precision,
            parameters=sum(p.numel() for p in state.model.parameters()),
            state=path.name,
            sha256=save_state(path, {**state.state_dict(), **about}),
        )
        keeps_weights = self._is_best(entry)
        if keeps_weights:
            path = folder.weights(epoch, attempt)
            told = {
                "epoch": epoch,
                "metrics": result.metrics,
                "trial": folder.key,
                **computed,
            }
            digest = save_weights(path, state.evaluated.state_dict(), told)
            entry = replace(entry, weights=path.name, weights_sha256=digest)
        self._journal.append(entry)

        is_new = epoch not in self._epochs
        counted = entry if is_new else self._epochs[epoch].again(entry)
        self._epochs[epoch] = counted
        if keeps_weights:
            self._best, self._best_is_whole = counted, True
        self._remove_superseded(epoch)
        return is_new

    def _is_best(self, entry: Entry) -> bool:
        """Whether its weights are to be kept; an epoch trained again counts as it did at first."""
        best, metric = self._best, self._record.metric
        if best is None:
            return True
        if entry.epoch in self._epochs:
            return entry.epoch == best.epoch and not self._best_is_whole
        value = best.metrics[metric]
        return bool(BEST[self._record.mode](value, entry.metrics[metric]) != value)

    def _remove_superseded(self, epoch: int) -> None:
        # Only once the line that supersedes them counts, for good: this is safe however long this
        # worker is held up here. Newer attempts' files are theirs to remove.
        last = (self._epochs.get(epoch - back) for back in range(KEPT_STATES))
        kept = {entry.state for entry in last if entry}
        kept |= {self._best.weights} if self._best else set()
        for path, attempt in self._folder.checkpoints():
            if attempt <= self._attempt.number and path.name not in kept:
                remove(path)


def restore(state: TrainingState, folder: TrialFolder, lines: list[Entry], hash: str) -> None:
    """Loads the newest whole state of this very configuration; none at all means epoch 1.

    Where it is not the last epoch's, that is said in the trial's log.
    """
    for entry in sorted(lines, key=lambda line: (line.epoch, line.line), reverse=True):
        saved = load_state(folder.file(entry.state), entry.sha256)
        if saved is not None and saved["config_hash"] == hash:
            state.load_state_dict(saved)
            break
    last = max((line.epoch for line in lines), default=0)
    if state.epoch < last:
        print(
            f"{folder.key} has {last} epochs, but its newest usable training state is of "
            f"epoch {state.epoch}: the later ones are trained again",
            file=sys.stderr,
        )
