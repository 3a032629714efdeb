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
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock, Timeout
from pydantic import ValidationError

from samtune.config import NAME_PATTERN, StudyConfig, TrialConfig, to_yaml
from samtune.errors import FencedError, SamtuneError, UnknownNameError
from samtune.files import read_json, sync_folder, write_atomically, write_json
from samtune.study_file import check_study
from samtune.yaml_reader import read_yaml

DEFAULT_STORAGE = Path("samtune_studies")
BASELINE_KEY = "t0000"
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

    def __post_init__(self) -> None:
        assert self.state in get_args(EndState), self.state


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

    def hand_out(self, record: dict[str, Any], session: int) -> None:
        """Creates the trial, or gives it out again under a newer session."""
        self.root.mkdir(parents=True, exist_ok=True)
        write_json(self.root / "trial.json", {**record, "session": session})
        for changed in (self.root, self.root.parent):
            sync_folder(changed)

    def record(self) -> dict[str, Any] | None:
        """What `hand_out` wrote; None where the trial was not handed out completely."""
        record: dict[str, Any] | None = read_json(self.root / "trial.json")
        return record

    def config(self) -> TrialConfig:
        """The trial's own resolved configuration."""
        record = self.record()
        assert record is not None
        return TrialConfig.model_validate(record["config"])

    def check_session(self, session: int) -> None:
        """Raises `FencedError` if a newer session has taken the trial over."""
        record = self.record()
        if record is None:
            raise OSError(f"{self.root} is not there: is the storage shared with this machine?")
        study = read_json(self.root.parent.parent / "manifest.json") or {"session": 0}
        if max(record["session"], study["session"]) > session:
            raise FencedError(f"{self.key} was handed out again; session {session} is over")

    def end(self, outcome: Outcome) -> None:
        """Writes down how the trial ended."""
        write_json(self.root / "outcome.json", asdict(outcome))

    def outcome(self) -> Outcome | None:
        """How the trial ended, or None while it has not."""
        raw = read_json(self.root / "outcome.json")
        return None if raw is None else Outcome(**raw)


@dataclass(frozen=True)
class Driver:
    """The process that runs a study."""

    host: str
    pid: int
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
        if not re.match(NAME_PATTERN, config.name):
            raise SamtuneError(f"{config.name!r} is no study name: {NAME_RULE}")
        folder = cls(storage.absolute() / config.name)
        try:
            (folder.root / "trials").mkdir(parents=True, exist_ok=True)
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
        self.save_config(config)
        write_json(
            self.root / "manifest.json",
            {
                "schema": SCHEMA,
                "study_id": uuid.uuid4().hex,
                "session": 0,
                "driver": None,
                "versions": installed_versions(),
            },
        )
        for changed in (self.root, self.root.parent):
            sync_folder(changed)

    @classmethod
    def open(cls, storage: Path, name: str) -> StudyFolder:
        """An existing study.

        Raises:
            SamtuneError: there is none of this name; near names are listed.
        """
        if not re.match(NAME_PATTERN, name):
            raise SamtuneError(f"{name!r} is no study name: {NAME_RULE}")
        folder = cls(storage.absolute() / name)
        manifest = read_json(folder.root / "manifest.json")
        if manifest is None:
            names = study_names(storage)
            if not names:
                raise SamtuneError(f"there is no study in {storage}; is --storage right?")
            raise UnknownNameError("study", name, names)
        if manifest["schema"] != SCHEMA:
            raise SamtuneError(
                f"study {name!r} was written by another samtune (schema {manifest['schema']}, "
                f"this one reads {SCHEMA})."
            )
        return folder

    @property
    def manifest(self) -> dict[str, Any]:
        """Identity, session, driver and versions."""
        manifest: dict[str, Any] = read_json(self.root / "manifest.json")
        return manifest

    @property
    def driver(self) -> Driver | None:
        """Who runs the study, or left it without saying goodbye."""
        raw = self.manifest["driver"]
        return None if raw is None else Driver(**raw)

    @property
    def is_running(self) -> bool:
        """Whether a driver is at work."""
        driver = self.driver
        return driver is not None and driver.is_alive

    def config(self) -> StudyConfig:
        """The resolved study file, for reading: no model, data set or plugin is imported."""
        try:
            return StudyConfig.model_validate(read_yaml(self.root / "study.yaml").value)
        except ValidationError as error:
            raise SamtuneError(
                f"study {self.name!r}: its study.yaml was changed or written by another samtune "
                f"({error.error_count()} problems)"
            ) from error

    def checked_config(self, plugins: Sequence[str], plugin_folder: Path) -> StudyConfig:
        """The resolved study file, for training: checked, with the plugins the user names.

        Raises:
            SamtuneError: the study needs plugins that were not named.
        """
        document = read_yaml(self.root / "study.yaml")
        recorded = document.value.get("plugins", [])
        missing = [module for module in recorded if module not in plugins]
        if missing:
            flags = " ".join(f"--plugin {module}" for module in missing)
            raise SamtuneError(
                f"study {self.name!r} uses {', '.join(missing)}, code that is imported only when "
                f"you say so: add {flags}"
            )
        return check_study(document, plugin_folder, plugins)

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

    def trial(self, key: str) -> TrialFolder:
        """One trial's folder, there or not."""
        return TrialFolder(self.root / "trials" / key)

    def trials(self) -> list[TrialFolder]:
        """The trials that were handed out, in order."""
        found = sorted((self.root / "trials").glob("t[0-9]*"))
        folders = [TrialFolder(path) for path in found if path.is_dir()]
        return [folder for folder in folders if folder.record() is not None]

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
            driver = self.driver
            # A lock of another machine may not reach this one, so its driver's word counts too.
            if driver and not driver.is_local and not force_unlock:
                raise SamtuneError(
                    f"study {self.name!r} is being run by {driver}. If that process is surely "
                    "gone, add --force-unlock."
                )
            number = manifest["session"] + 1
            held = {**manifest, "session": number, "driver": asdict(Driver.this_process())}
            write_json(self.root / "manifest.json", held)
            try:
                yield number
            finally:
                if self.manifest["session"] == number:
                    write_json(self.root / "manifest.json", {**held, "driver": None})
        finally:
            lock.release()

    def check_session(self, session: int) -> None:
        """Raises `FencedError` if another driver has begun a newer session."""
        if self.manifest["session"] > session:
            raise FencedError(f"another driver has taken over study {self.name!r}: {self.driver}")

    def tune_folder(self, session: int) -> Path:
        """Where Ray Tune may keep its own files for one session; nothing is read from there."""
        return self.root / ".tune" / f"session-{session}"

    def remove_tune_folders(self) -> None:
        """Clears away what earlier sessions' Ray Tune left."""
        shutil.rmtree(self.root / ".tune", ignore_errors=True)


def study_names(storage: Path) -> list[str]:
    """The studies in a storage folder."""
    if not storage.is_dir():
        return []
    return sorted(path.parent.name for path in storage.glob("*/manifest.json"))


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
