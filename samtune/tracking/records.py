"""What MLflow has taken of a study: `tracking.json`, derived and never needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from samtune.files import parse_json, write_atomically
from samtune.study.fetching import fetch_own
from samtune.study.folder import StudyFolder
from samtune.study.study import Study, Trial
from samtune.words import count


@dataclass
class ShippedRun:
    """What MLflow has of one trial, or of the study itself.

    Attributes:
        epochs: how many of the journal's it has been sent.
        last_ms: when the last of them ended: another time is another epoch.
        params: whether it has the parameters.
        datasets: whether it has the training and validation split.
        state: what it was last told of the trial.
        gain: over the baseline, as it was last told.
        refused: what it does not want of it, and why; under "" if it is the whole of it.
    """

    run_id: str = ""
    epochs: int = 0
    last_ms: int = 0
    params: bool = False
    datasets: bool = False
    state: str = ""
    gain: float | None = None
    refused: dict[str, str] = field(default_factory=dict)

    def reset(self) -> None:
        """Notes that MLflow has nothing of it."""
        self.run_id, self.epochs, self.last_ms = "", 0, 0
        self.params, self.datasets, self.state, self.gain = False, False, "", None
        self.refused.clear()

    def contradicts(self, trial: Trial) -> bool:
        """Whether MLflow has epochs that the journal has not, or no longer."""
        if self.epochs > len(trial.epochs):
            return True
        return bool(self.last_ms) and trial.epochs[self.epochs - 1].time_ms != self.last_ms


@dataclass
class Shipped:
    """What MLflow has of a study.

    Attributes:
        uri: which MLflow, without a password.
        parent: the study's own run.
        study_file, confirmation, page: the digests of the study file, `confirm.json` and
            `report.html` it has.
        view: the digest of the view of the study's run table.
        champion: the trial and epoch of the model that was registered or tried.
        problems: what it does not take for good, by name.
        notes: what to tell the user once the study ends.
    """

    uri: str = ""
    parent: ShippedRun = field(default_factory=ShippedRun)
    study_file: str = ""
    confirmation: str = ""
    page: str = ""
    view: str = ""
    summary: dict[str, Any] | None = None
    champion: dict[str, Any] | None = None
    trials: dict[str, ShippedRun] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, root: Path) -> Shipped:
        """The record; an empty one where it is gone or damaged, so that all is sent again.

        Sending again is free: MLflow drops a point that it has.
        """
        try:
            return parse_json((root / "tracking.json").read_bytes(), cls)
        except (OSError, ValueError):
            return cls()

    def forget(self, key: str) -> None:
        """Notes that MLflow has nothing of this trial, or of the study itself."""
        if key in self.trials:
            self.trials[key].reset()
        else:
            self.parent.reset()
            self.summary, self.study_file, self.confirmation, self.page, self.view = (
                None,
                "",
                "",
                "",
                "",
            )

    def try_refused_again(self) -> None:
        """Forgets refusals: MLflow may think otherwise by now."""
        for record in (self.parent, *self.trials.values()):
            if record.refused:
                record.reset()
        self.problems = {}

    def add_note(self, note: str) -> None:
        """Keeps a line for the user, once."""
        if note not in self.notes:
            self.notes.append(note)

    def write(self, root: Path) -> None:
        """Replaces the record."""
        write_atomically(root / "tracking.json", _shipped.dump_json(self, indent=2) + b"\n")


_shipped = TypeAdapter(Shipped)


@dataclass(frozen=True)
class Report:
    """What MLflow has not, and what there is to say of it.

    Attributes:
        epochs: how many were not taken yet.
        runs: how many whose state it does not know yet, the study's own among them.
        refused: what it does not take for good of the trials: a name and a reason each.
        notes: other sentences for the user.
    """

    epochs: int
    runs: int
    refused: list[str]
    notes: list[str]

    @property
    def missing(self) -> str:
        """What is still to be sent, in words; empty if nothing is."""
        parts = [count(self.epochs, "epoch")] if self.epochs else []
        parts += [f"the state of {count(self.runs, 'run')}"] if self.runs else []
        return " and ".join(parts)

    @property
    def refusals(self) -> str:
        """What is refused, the first few by name; empty if nothing is."""
        if not self.refused:
            return ""
        more = f" and {len(self.refused) - 3} more" if len(self.refused) > 3 else ""
        return f"{count(len(self.refused), 'record')}: {'; '.join(self.refused[:3])}{more}"


def report(root: Path, address: str | None = None) -> Report:
    """What MLflow has not yet of the study in this folder, by the record and the journals.

    Args:
        address: which MLflow, without a password; None is the one that was last written to.
    """
    folder = StudyFolder(root)
    fetch_own(root)
    shipped = Shipped.read(root)
    if address is not None and shipped.uri != address:
        shipped = Shipped(address)  # what another one has does not count
    study = Study(folder, folder.config())
    pairs = [(trial, shipped.trials.get(trial.key, ShippedRun())) for trial in study.trials]
    unknown = sum(record.state != trial.state for trial, record in pairs)
    unknown += bool(study.trials) and (shipped.summary or {}).get("status") != run_status(study)
    return Report(
        epochs=sum(max(0, len(trial.epochs) - record.epochs) for trial, record in pairs),
        runs=unknown,
        refused=[
            f"{key} {what}".strip() + f": {reason}"
            for key, record in [("the study's", shipped.parent), *shipped.trials.items()]
            for what, reason in record.refused.items()
        ],
        notes=[*shipped.notes, *(f"MLflow: {n}: {why}" for n, why in shipped.problems.items())],
    )


def pending(root: Path) -> int:
    """How many finished epochs MLflow has not taken yet."""
    return report(root).epochs


def run_status(study: Study) -> str:
    """What MLflow calls the state that the study is in."""
    return {"running": "RUNNING", "interrupted": "KILLED"}.get(study.state, "FINISHED")
