"""Trials with the files that a worker leaves, a few bytes each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.files import sha256_of
from samtune.study.folder import StudyFolder
from samtune.study.journal import Attempt, Entry, Journal
from samtune.study.trial_folder import EndState, Outcome, TrialFolder, trial_key


def write_trial(
    folder: StudyFolder,
    config: StudyConfig,
    number: int,
    curve: Sequence[float],
    state: EndState | None = "finished",
) -> TrialFolder:
    """A trial as a worker leaves it: two states, the best epoch's weights, and its end."""
    key = trial_key(number)
    trial = folder.trial(key)
    values = {"sam.rho": 0.1, "optimizer.lr": 0.1} if number else {"sam.rho": 0.0}
    trial.hand_out(record_of(config, key, values), 1)
    attempt = Attempt(1, 1)
    best = max(range(len(curve)), key=lambda i: curve[i])
    for epoch, value in enumerate(curve, 1):
        path, weights = trial.state(epoch, attempt), trial.weights(epoch, attempt)
        path.write_bytes(f"state {key} {epoch}".encode())
        is_best = value > max(curve[: epoch - 1], default=-1)
        if is_best:
            weights.write_bytes(f"weights {key} {epoch}".encode())
        entry = Entry(1, 1, epoch, {"val_accuracy": value}, 0.1, 1, path.name, sha256_of(path))
        if is_best:
            entry = replace(entry, weights=weights.name, weights_sha256=sha256_of(weights))
        Journal(trial.journal).append(entry)
        if epoch - 1 != best:
            weights.unlink(missing_ok=True)
        if epoch < len(curve) - 1:
            path.unlink()
    if state:
        late = state not in ("finished", "stopped")
        trial.end(Outcome(state, len(curve) + late))
    return trial
