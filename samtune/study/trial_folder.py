"""One trial's files, and how it ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from samtune import working_copy
from samtune.config.trial import TrialRecord
from samtune.errors import DamagedFileError, FencedError
from samtune.files import (
    TEMPORARY,
    read_json,
    remove,
    set_aside,
    sha256_of,
    sync_folder,
    write_json,
)
from samtune.study.journal import Attempt, Journal
from samtune.study.manifest import Manifest
from samtune.working_copy import at_hand, current

BASELINE_KEY = "t0000"
TRIAL_PATTERN = r"t\d{4,}"
TRIAL_FILES = ("trial.json", "epochs.jsonl", "outcome.json")
LET_GO_FILE = "let_go.json"
CHECKPOINT_PATTERN = r"(?:state|best)-\d+-a(\d+)(?:-[0-9a-f]+)?\.(?:pt|safetensors)"
EndState = Literal["finished", "stopped", "diverged", "out_of_memory", "failed"]
TrialState = Literal[EndState, "running", "interrupted"]
FAILED_STATES = ("failed", "out_of_memory")


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: `stopped` is the trial scheduler's doing or the user's, the others the trial's own.
        epoch: the epoch it ended in.
        reason: one sentence for people; empty where the state says it all.
    """

    state: EndState
    epoch: int
    reason: str = ""

    @property
    def epochs(self) -> int:
        """How many finished epochs the trial has at least."""
        return self.epoch if self.state in ("finished", "stopped") else self.epoch - 1


@dataclass(frozen=True)
class LetGo:
    """Why the weights of an ended trial were not kept.

    Attributes:
        rank: its place among the trials that had ended by then; None where it could not win.
        of: how many of them could.
        keep_weights: how many trials keep their weights.
    """

    rank: int | None
    of: int
    keep_weights: int

    def __str__(self) -> str:
        place = f"it was number {self.rank} of {self.of}" if self.rank else "it could not win"
        return f"{place}, and study.keep_weights is {self.keep_weights}"


@dataclass(frozen=True)
class _Ending:
    """An outcome as it is written down: with the session that says so."""

    state: EndState
    epoch: int
    reason: str
    session: int


class TrialFolder:
    """One trial's files.

    Args:
        study_id: the study the caller takes it to belong to; None where it only reads.
    """

    def __init__(self, root: Path, study_id: str | None = None) -> None:
        self.root = root
        self.key = root.name
        self.study_id = study_id

    @property
    def study(self) -> Path:
        """The folder of the study it is a trial of."""
        return self.root.parent.parent

    @property
    def journal(self) -> Path:
        """One line per finished epoch."""
        return self.root / "epochs.jsonl"

    @property
    def log(self) -> Path:
        """What the trial printed, and its traceback if it failed."""
        return self.root / "trial.log"

    def state(self, epoch: int, attempt: Attempt) -> Path:
        """Where this attempt keeps the training state after this epoch."""
        return self.root / f"state-{epoch:05d}-{attempt}.pt"

    def weights(self, epoch: int, attempt: Attempt) -> Path:
        """Where this attempt keeps this epoch's weights, if they are the best so far."""
        return self.root / f"best-{epoch:05d}-{attempt}.safetensors"

    def file(self, name: str) -> Path:
        """A file that the journal names; none leaves this folder."""
        return at_hand(self.root / Path(name).name)

    def is_whole(self, name: str, sha256: str) -> bool:
        """Whether a file is there as the journal names it."""
        return bool(name) and sha256_of(self.file(name)) == sha256

    def checkpoints(self) -> Iterator[tuple[Path, int]]:
        """Every training state and weights file, and the number of the attempt that wrote it."""
        for name in working_copy.names(self.root):
            if found := re.fullmatch(CHECKPOINT_PATTERN, name):
                yield self.root / name, int(found[1])

    def fetch(self) -> None:
        """Brings a copy of what lies in a bucket to where that is; elsewhere it does nothing."""
        if working_copy.is_copy(self.root):
            said = (*TRIAL_FILES, LET_GO_FILE)
            working_copy.fetch(self.root, said.__contains__, TRIAL_FILES)

    def let_go(self) -> LetGo | None:
        """Why its weights were not kept; None where they are."""
        return read_json(self.root / LET_GO_FILE, LetGo)

    def note_let_go(self, why: LetGo) -> None:
        """Says that its weights are not kept; only then may they be removed."""
        write_json(self.root / LET_GO_FILE, asdict(why))
        sync_folder(self.root)

    def leftovers(self) -> list[Path]:
        """What was being written when somebody was killed."""
        return sorted(self.root.glob(f"{TEMPORARY}*"))

    def remove_leftovers(self) -> None:
        """Removes them, so that what a worker held up is just writing gets no name any more."""
        for path in self.leftovers():
            path.unlink(missing_ok=True)

    def hand_out(self, record: TrialRecord, session: int) -> None:
        """Creates the trial, or gives it out again under a newer session.

        An outcome that an older session has written does not count any more.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        remove(self.root / LET_GO_FILE)  # it will have weights again
        handed_out = record.model_copy(update={"session": session})
        write_json(self.root / "trial.json", handed_out.model_dump(mode="json"))
        for changed in (self.root, self.root.parent):
            sync_folder(changed)

    def record(self) -> TrialRecord | None:
        """What `hand_out` wrote; None where the trial was not handed out completely.

        Raises:
            DamagedFileError: it was changed since.
        """
        return read_json(self.root / "trial.json", TrialRecord)

    def check_session(self, session: int) -> None:
        """Raises `FencedError` if a newer session, or another study, has taken the place over."""
        study = read_json(current(self.study / "manifest.json"), Manifest)
        if study and self.study_id and study.study_id != self.study_id:
            raise FencedError(f"{self.root} belongs to another study of the same name now")
        record = self.record()
        if record is None or (study is None and self.study_id):
            raise OSError(f"{self.root} is not there: is the storage shared with this machine?")
        if max(record.session, study.session if study else 0) > session:
            raise FencedError(f"{self.key} was handed out again; session {session} is over")

    def end(
        self, outcome: Outcome, session: int | None = None, attempt: Attempt | None = None
    ) -> None:
        """Writes down how the trial ended.

        Args:
            session: who says so; None is the session the trial was last handed out under.
            attempt: which of its attempts says so; None is the driver.

        Raises:
            FencedError: the trial is not theirs any more.
        """

        def check() -> None:
            if session is not None:
                self.check_session(session)
            if attempt is not None:
                Journal(current(self.journal)).check(attempt)

        record = self.record() if session is None else None
        by = record.session if record else session or 0
        write_json(self.root / "outcome.json", {**asdict(outcome), "session": by}, check)

    def outcome(self, record: TrialRecord | None = None) -> Outcome | None:
        """How the trial ended, or None while it has not.

        Args:
            record: the trial's, where the caller has it at hand.

        Raises:
            DamagedFileError: it was changed since.
        """
        ending = read_json(self.root / "outcome.json", _Ending)
        if ending is None:
            return None
        record = record or self.record()
        if record and ending.session < record.session:
            return None  # a worker that was held up has written it over the head of a newer session
        return Outcome(ending.state, ending.epoch, ending.reason)

    def checked_outcome(
        self, epochs: int | None = None, record: TrialRecord | None = None
    ) -> tuple[Outcome | None, str]:
        """How the trial ended if the journal bears it out, and what is wrong otherwise.

        Args:
            epochs: how many the journal has, where the caller knows.
            record: the trial's, where the caller has it at hand.
        """
        try:
            outcome = self.outcome(record)
        except DamagedFileError as error:
            return None, f"is damaged ({error.reason})"
        if epochs is None:
            epochs = len(Journal(self.journal).epochs())
        if outcome and outcome.epochs > epochs:
            told = f"says {outcome.state} in epoch {outcome.epoch}, but the journal has {epochs}"
            return None, told
        return outcome, ""

    def set_outcome_aside(self) -> Path:
        """Gives an outcome that does not hold another name, and returns it."""
        path = self.root / "outcome.json"
        aside = set_aside(path)
        remove(path)
        return aside

    def reopen(self) -> None:
        """Forgets how the trial ended, so that it is handed out again."""
        remove(self.root / "outcome.json")
        sync_folder(self.root)


def trial_number(key: str) -> int:
    """The number of `t0007` is 7."""
    return int(key.removeprefix("t"))


def trial_key(number: int) -> str:
    """`t0007`; number 0 is the baseline."""
    return f"t{number:04d}"
