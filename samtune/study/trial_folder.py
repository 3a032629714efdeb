"""One trial's files, and how it ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from samtune.config.schema import TrialRecord
from samtune.errors import FencedError
from samtune.files import read_json, sync_folder, write_json
from samtune.study.manifest import Manifest

BASELINE_KEY = "t0000"
TRIAL_PATTERN = r"t\d{4,}"
EndState = Literal["finished", "stopped", "diverged", "out_of_memory", "failed"]
TrialState = Literal[EndState, "running", "interrupted"]
FAILED_STATES = ("failed", "out_of_memory")


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: `stopped` is the trial scheduler's doing, the others the trial's own.
        epoch: the epoch it ended in.
        reason: one sentence for people; empty where the state says it all.
    """

    state: EndState
    epoch: int
    reason: str = ""


class TrialFolder:
    """One trial's files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key = root.name

    @property
    def journal(self) -> Path:
        """One line per finished epoch."""
        return self.root / "epochs.jsonl"

    @property
    def best_weights(self) -> Path:
        """The best epoch's weights."""
        return self.root / "best.safetensors"

    @property
    def log(self) -> Path:
        """What the trial printed, and its traceback if it failed."""
        return self.root / "trial.log"

    def state(self, epoch: int) -> Path:
        """The training state after this epoch."""
        return self.root / f"state-{epoch:05d}.pt"

    def hand_out(self, record: TrialRecord, session: int) -> None:
        """Creates the trial, or gives it out again under a newer session."""
        self.root.mkdir(parents=True, exist_ok=True)
        handed_out = record.model_copy(update={"session": session})
        write_json(self.root / "trial.json", handed_out.model_dump(mode="json"))
        for changed in (self.root, self.root.parent):
            sync_folder(changed)

    def record(self) -> TrialRecord | None:
        """What `hand_out` wrote; None where the trial was not handed out completely."""
        return read_json(self.root / "trial.json", TrialRecord)

    def check_session(self, session: int) -> None:
        """Raises `FencedError` if a newer session has taken the trial over."""
        record = self.record()
        if record is None:
            raise OSError(f"{self.root} is not there: is the storage shared with this machine?")
        study = read_json(self.root.parent.parent / "manifest.json", Manifest)
        if max(record.session, study.session if study else 0) > session:
            raise FencedError(f"{self.key} was handed out again; session {session} is over")

    def end(self, outcome: Outcome) -> None:
        """Writes down how the trial ended."""
        write_json(self.root / "outcome.json", asdict(outcome))

    def reopen(self) -> None:
        """Forgets how the trial ended, so that it is handed out again."""
        (self.root / "outcome.json").unlink(missing_ok=True)
        sync_folder(self.root)

    def outcome(self) -> Outcome | None:
        """How the trial ended, or None while it has not."""
        return read_json(self.root / "outcome.json", Outcome)


def trial_number(key: str) -> int:
    """The number of `t0007` is 7."""
    return int(key.removeprefix("t"))


def trial_key(number: int) -> str:
    """`t0007`; number 0 is the baseline."""
    return f"t{number:04d}"
