"""The folder of a study: where everything lies, and who may write to it.

    <storage>/<name>/
      study.yaml  manifest.json  lock  driver.log
      trials/t0007/
        trial.json           values, resolved configuration, the session it was handed out under
        epochs.jsonl         one line per finished epoch (`journal`)
        state-00012.pt       training states, the last two
        best.safetensors     the best epoch's weights
        outcome.json         how the trial ended, once it has
        trial.log            what it printed

Every driver that takes the study over begins a new session, a number that only grows. A trial is
handed out under a session; a worker left over from an older one finds that out before it writes.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from filelock import FileLock, Timeout
from pydantic import Field

from samtune.config import NAME_PATTERN, StudyConfig, TrialRecord, to_yaml
from samtune.errors import FencedError, SamtuneError, UnknownNameError
from samtune.files import read_json, sync_folder, write_atomically, write_json
from samtune.problems import Problems
from samtune.study_file import check_study
from samtune.yaml_reader import read_yaml

DEFAULT_STORAGE = Path("samtune_studies")
BASELINE_KEY = "t0000"
TRIAL_PATTERN = r"t\d{4,}"
SCHEMA = 1
NAME_RULE = "1 to 64 letters, digits, dots, dashes or underscores"

EndState = Literal["finished", "stopped", "diverged", "out_of_memory", "failed"]
TrialState = Literal[EndState, "running", "interrupted"]


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

    def outcome(self) -> Outcome | None:
        """How the trial ended, or None while it has not."""
        return read_json(self.root / "outcome.json", Outcome)


@dataclass(frozen=True)
class Driver:
    """The process that runs a study."""

    host: str
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    since: str
    started: str

    @classmethod
    def this_process(cls) -> Driver:
        """The calling process."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), os.getpid(), now, _process_start(os.getpid()))

    @property
    def is_local(self) -> bool:
        """Whether it ran on this machine, so that one can look whether it still does."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; on another machine one must assume so."""
        if not self.is_local:
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return self.started == _process_start(self.pid)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


@dataclass(frozen=True)
class Manifest:
    """What is known of a study beside its settings.

    Attributes:
        session: the number of the last one.
        driver: who runs the study, or left it without saying goodbye.
        versions: what it was begun with.
    """

    schema: int
    study_id: str
    session: Annotated[int, Field(ge=0)]
    driver: Driver | None
    versions: dict[str, str]


@dataclass(frozen=True)
class _Schema:
    """What the manifests of all versions have."""

    schema: int


class StudyFolder:
    """A study on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = root.name

    @classmethod
    def create(cls, storage: Path, config: StudyConfig) -> StudyFolder:
        """A new study.

        Raises:
            SamtuneError: the name is taken, or the storage cannot be written.
        """
        check_name(config.name)
        folder = cls(storage.absolute() / config.name)
        try:
            folder._trials.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.root / "lock", timeout=0):
                folder._write_new(config)
        except Timeout:
            raise SamtuneError(f"study {config.name!r} is just being created or run") from None
        except OSError as error:
            raise SamtuneError(
                f"storage {storage} cannot be written: {error.strerror or error}"
            ) from error
        return folder

    def _write_new(self, config: StudyConfig) -> None:
        if (self.root / "manifest.json").exists():
            raise SamtuneError(
                f"study {config.name!r} exists in {self.root.parent}: go on with `samtune resume "
                f"{config.name}`, or take another name with --name."
            )
        if any(self._trials.iterdir()):
            raise SamtuneError(
                f"{self.root} holds trials, but its manifest.json is gone: restore it from a "
                "backup, or take another name with --name."
            )
        self.save_config(config)
        self._write_manifest(Manifest(SCHEMA, uuid.uuid4().hex, 0, None, installed_versions()))
        for changed in (self.root, self.root.parent):
            sync_folder(changed)

    @classmethod
    def open(cls, storage: Path, name: str) -> StudyFolder:
        """An existing study.

        Raises:
            SamtuneError: there is none of this name; near names are listed.
        """
        check_name(name)
        folder = cls(storage.absolute() / name)
        names = study_names(storage)
        if not names:
            raise SamtuneError(f"there is no study in {storage}; is --storage right?")
        if name not in names:
            raise UnknownNameError("study", name, names)
        written = read_json(folder.root / "manifest.json", _Schema)
        if written and written.schema != SCHEMA:
            raise SamtuneError(
                f"study {name!r} was written by another samtune (schema {written.schema}, "
                f"this one reads {SCHEMA})."
            )
        _ = folder.manifest
        return folder

    @property
    def manifest(self) -> Manifest:
        """Identity, session, driver and versions."""
        manifest = read_json(self.root / "manifest.json", Manifest)
        if manifest is None:
            raise SamtuneError(f"{self.root} has no manifest.json; restore it from a backup")
        return manifest

    def _write_manifest(self, manifest: Manifest) -> None:
        write_json(self.root / "manifest.json", asdict(manifest))

    @property
    def driver(self) -> Driver | None:
        """Who runs the study, or left it without saying goodbye."""
        return self.manifest.driver

    @property
    def is_running(self) -> bool:
        """Whether a driver is at work."""
        driver = self.driver
        return driver is not None and driver.is_alive

    def config(self) -> StudyConfig:
        """The resolved study file, for reading: no model, data set or plugin is imported."""
        document = read_yaml(self.root / "study.yaml")
        problems = Problems(document)
        config: StudyConfig = problems.validate(StudyConfig, document.value, ())
        if config and config.study.mode is None:
            problems.add(("study", "mode"), "is required in a study's own copy of its file.")
        problems.raise_if_any()
        return config

    def checked_config(self, plugins: Sequence[str], plugin_folder: Path) -> StudyConfig:
        """The resolved study file, for training: checked, with the plugins the user names.

        Raises:
            SamtuneError: the study needs plugins that were not named.
        """
        missing = [module for module in self.config().plugins if module not in plugins]
        if missing:
            flags = " ".join(f"--plugin {module}" for module in missing)
            raise SamtuneError(
                f"study {self.name!r} uses {', '.join(missing)}, code that is imported only when "
                f"you say so: add {flags}"
            )
        return check_study(read_yaml(self.root / "study.yaml"), plugin_folder, plugins)

    def save_config(self, config: StudyConfig) -> None:
        """Writes the resolved study file."""
        write_atomically(self.root / "study.yaml", to_yaml(config).encode())

    def command(self, verb: str, rest: str = "") -> str:
        """What to type for this study, with `--storage` and `--plugin` where they are needed."""
        storage = self.root.parent
        words = ["samtune", verb, self.name, rest]
        if storage != DEFAULT_STORAGE.absolute():
            words.append(f"--storage {storage}")
        if verb in ("resume", "export", "sync"):
            words += [f"--plugin {module}" for module in self.config().plugins]
        return " ".join(word for word in words if word)

    @property
    def _trials(self) -> Path:
        return self.root / "trials"

    def trial(self, key: str) -> TrialFolder:
        """One trial's folder, there or not."""
        return TrialFolder(self._trials / key)

    def trials(self) -> list[TrialFolder]:
        """The trials that were handed out, in order.

        Raises:
            SamtuneError: what belongs to them is gone, so that a new trial could take their place.
        """
        if not self._trials.is_dir():
            raise SamtuneError(
                f"{self._trials} is gone, and with it every trial of study {self.name!r}: restore "
                f"it from a backup, or remove {self.root} and start anew with `samtune run`"
            )
        handed_out = []
        for path in sorted(self._trials.iterdir()):
            if not re.fullmatch(TRIAL_PATTERN, path.name):
                continue
            folder = TrialFolder(path)
            if folder.record() is not None:
                handed_out.append(folder)
            elif folder.journal.exists():
                raise SamtuneError(
                    f"{path} has epochs but no trial.json; restore it from a backup, or remove "
                    f"{path} to have another trial in its place"
                )
        return handed_out

    @contextmanager
    def session(self, *, force_unlock: bool = False) -> Iterator[int]:
        """Holds the study for this process and yields the number of its new session.

        Raises:
            SamtuneError: another driver holds it.
        """
        lock = FileLock(self.root / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise SamtuneError(f"study {self.name!r} is being run by {self.driver}.") from None
        try:
            manifest = self.manifest
            driver = manifest.driver
            # A lock of another machine may not reach this one, so its driver's word counts too.
            if driver and not driver.is_local and not force_unlock:
                raise SamtuneError(
                    f"study {self.name!r} is being run by {driver}. If that process is surely "
                    "gone, add --force-unlock."
                )
            number = manifest.session + 1
            held = replace(manifest, session=number, driver=Driver.this_process())
            self._write_manifest(held)
            try:
                yield number
            finally:
                if self.manifest.session == number:
                    self._write_manifest(replace(held, driver=None))
        finally:
            lock.release()

    def check_session(self, session: int) -> None:
        """Raises `FencedError` if another driver has begun a newer session."""
        if self.manifest.session > session:
            raise FencedError(f"another driver has taken over study {self.name!r}: {self.driver}")

    def tune_folder(self, session: int) -> Path:
        """Where Ray Tune may keep its own files for one session; nothing is read from there."""
        return self.root / ".tune" / f"session-{session}"

    def remove_tune_folders(self) -> None:
        """Clears away what earlier sessions' Ray Tune left."""
        shutil.rmtree(self.root / ".tune", ignore_errors=True)


def check_name(name: str) -> None:
    """Raises `SamtuneError` if no study can be called so."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise SamtuneError(f"{name!r} is no study name: {NAME_RULE}")


def study_names(storage: Path) -> list[str]:
    """The studies in a storage folder, damaged ones too.

    Raises:
        SamtuneError: `storage` is no folder.
    """
    if not storage.exists():
        return []
    if not storage.is_dir():
        raise SamtuneError(f"storage {storage} is no folder; name the one that holds the studies")
    files = [*storage.glob("*/manifest.json"), *storage.glob("*/study.yaml")]
    return sorted({path.parent.name for path in files})


def trial_key(number: int) -> str:
    """`t0007`; number 0 is the baseline."""
    return f"t{number:04d}"


def installed_versions() -> dict[str, str]:
    """The versions a result depends on."""
    import platform
    from importlib.metadata import version

    packages = ("samtune", "torch", "torchvision", "numpy", "ray", "optuna", "mlflow")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _process_start(pid: int) -> str:
    """The kernel's start time of a process: a pid alone may have been given out again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
