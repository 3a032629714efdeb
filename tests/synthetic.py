"""Studies whose truth is known: trials with given settings and curves, written as workers do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.study.folder import StudyFolder
from samtune.study.journal import Entry, Journal
from samtune.study.study import Study
from samtune.study.trial_folder import EndState, Outcome, trial_key

Make = Callable[..., StudyConfig]
RHO_ALONE = ("  optimizer.lr: {float: [0.01, 0.5], log: true}\n", "")


@dataclass(frozen=True)
class Run:
    """One trial: its settings, its validation accuracies epoch by epoch, and how it ended.

    Attributes:
        start_ms: when its first epoch of 100 ms began.
        parameters: of its model.
        gradients: of each of its epochs; None where its journal has not counted them.
    """

    values: dict[str, Any]
    curve: Sequence[float]
    state: EndState = "finished"
    start_ms: int = 0
    reason: str = ""
    parameters: int = 0
    gradients: float | None = None


def write_study(
    storage: Path,
    config: StudyConfig,
    runs: Sequence[Run],
    baseline: Sequence[float] | None = None,
) -> Study:
    """Writes a study's trials, the baseline first if there is one, and opens it."""
    folder = StudyFolder.create(storage, config)
    first = [Run({"sam.rho": 0.0}, baseline)] if baseline is not None else []
    for number, run in enumerate([*first, *runs], 1 - len(first)):
        trial = folder.trial(trial_key(number))
        trial.hand_out(record_of(config, trial.key, run.values), 1)
        journal = Journal(trial.journal)
        for epoch, accuracy in enumerate(run.curve, 1):
            metrics = {"train_loss": 1.0, "val_loss": 2 - accuracy, "val_accuracy": accuracy}
            if run.gradients is not None:
                metrics["gradient_evaluations"] = run.gradients
            when = run.start_ms + 100 * epoch
            entry = Entry(1, 1, epoch, metrics, 0.1, when, "s", "0", parameters=run.parameters)
            journal.append(entry)
        late = run.state not in ("finished", "stopped")
        trial.end(Outcome(run.state, len(run.curve) + late, run.reason))
    return Study(folder, config)
