"""The folder of a study: where everything lies, and who may write to it.

    <storage>/<name>/
      study.yaml  settings.json  manifest.json  lock
      tracking.json  mlflow.json     what MLflow has taken, and which MLflow (`tracking`)
      index, answer        what the ended trials come to, so that it is found once (`derived`)
      data/                what data the trials have seen (`used_data`)
      .tune/                         Ray Tune's own, while a driver runs
      requests/                      what other terminals ask of it (`requests`)
      trials/t0007/
        trial.json           values, resolved configuration, the session it was handed out under
        epochs.jsonl         one line per finished epoch (`history`)
        state-00012-a2-5d0e81aa.pt           training states, the last two; a2: by attempt 2
        best-00009-a1-c93f0b12.safetensors   the best epoch's weights
        outcome.json         how the trial ended, once it has
        let_go.json          why its weights were not kept, where they were not (`keeping`)
        trial.log            what it printed

Every driver that takes the study over begins a new session, a number that only grows. A trial is
handed out under a session; a worker left over from an older one finds that out before it writes,
and what it writes all the same, having been held up, counts for nothing. A driver and its workers
know their study by its id: another one may have got its name and its place.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from filelock import FileLock, Timeout

from samtune.config.base import NAME_PATTERN
from samtune.config.overrides import refuse_searched, with_overrides
from samtune.config.problems import Problems
from samtune.config.schema import StudyConfig
from samtune.config.study_file import check_study, to_yaml
from samtune.config.trial import TrialRecord
from samtune.config.yaml_reader import read_yaml
from samtune.errors import DamagedFileError, FencedError, SamtuneError, UnknownNameError
from samtune.files import read_json, sync_folder, write_atomically, write_json
from samtune.registry import holds_plugins
from samtune.study import fetching
from samtune.study.driver import Driver
from samtune.study.fetching import STUDY_FILES, fetch_own, fetch_study
from samtune.study.lease import is_alive, lock_of
from samtune.study.manifest import (
    SCHEMA,
    Manifest,
    Reading,
    _Schema,
    installed_versions,
)
from samtune.study.settings import (
    accepted_config,
    check_changes,
    read_settings,
    unchanged_config,
    write_settings,
)
from samtune.study.trial_folder import TRIAL_PATTERN, TrialFolder, trial_number
from samtune.working_copy import ChangedError, address, current, delete_folder, is_copy

DEFAULT_STORAGE = Path("samtune_studies")
_TRIAL = re.compile(TRIAL_PATTERN)
NAME_RULE = "1 to 64 letters, digits, dots, dashes or underscores"


class StudyFolder:
    """A study on disk.

    Args:
        study_id: which study the caller takes it to be; None where it only reads.
    """

    def __init__(self, root: Path, study_id: str | None = None) -> None:
        self.root = root
        self.name = root.name
        self.study_id = study_id

    @classmethod
    def create(
        cls, storage: Path, config: StudyConfig, plugin_folder: Path | None = None
    ) -> StudyFolder:
        """A new study.

        Args:
            plugin_folder: where its plugins were found, if it has any.

        Raises:
            SamtuneError: the name is taken, or the storage cannot be written.
        """
        cls.check_free(storage, config.name)
        folder = cls(storage.absolute() / config.name)
        folder.refuse_link(folder.root)
        try:
            folder.fetch()
            folder._trials.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.root / "lock", timeout=0):
                folder._write_new(config, plugin_folder)
        except (Timeout, ChangedError):
            raise SamtuneError(f"study {config.name!r} is just being created or run") from None
        except OSError as error:
            raise SamtuneError(
                f"storage {address(storage)} cannot be written: {error.strerror or error}"
            ) from error
        return folder

    @classmethod
    def check_free(cls, storage: Path, name: str) -> None:
        """Raises `SamtuneError` if no study can be begun under this name."""
        check_name(name)
        folder = cls(storage.absolute() / name)
        if current(folder.root / "manifest.json").exists():
            raise SamtuneError(
                f"study {name!r} exists in {address(folder.root.parent)}: go on with `samtune "
                f"resume {name}`, or take another name with --name."
            )

    def _write_new(self, config: StudyConfig, plugin_folder: Path | None) -> None:
        self.check_free(self.root.parent, config.name)  # again, with the lock held
        if any(self._trials.iterdir()):
            raise SamtuneError(
                f"{self.root} holds trials, but its manifest.json is gone: restore it from a "
                "backup, or take another name with --name."
            )
        self.save_config(config, 0, plugin_folder)
        self.study_id = uuid.uuid4().hex
        self.write_manifest(Manifest(SCHEMA, self.study_id, 0, None, installed_versions()))
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
        fetch_own(folder.root)
        if not any((folder.root / file).exists() for file in STUDY_FILES):
            names = study_names(storage)
            if not names:
                raise SamtuneError(f"there is no study in {address(storage)}; is --storage right?")
            raise UnknownNameError("study", name, names)
        folder.refuse_link(folder.root)
        written = read_json(folder.root / "manifest.json", _Schema)
        if written and written.schema != SCHEMA:
            raise SamtuneError(
                f"study {name!r} was written by another samtune (schema {written.schema}, "
                f"this one reads {SCHEMA})."
            )
        folder.study_id = folder.manifest.study_id
        return folder

    @property
    def manifest(self) -> Manifest:
        """Identity, session, driver and versions."""
        manifest = read_json(self.root / "manifest.json", Manifest)
        if manifest is None:
            where = address(self.root)
            raise SamtuneError(f"{where} has no manifest.json; restore it from a backup")
        return manifest

    def fetch(self) -> None:
        """Brings a copy of what lies in a bucket to where that is; elsewhere it does nothing."""
        fetch_study(self.root)

    def write_manifest(self, manifest: Manifest) -> None:
        """Replaces the manifest; for who holds the study."""
        write_json(self.root / "manifest.json", asdict(manifest))

    @property
    def driver(self) -> Driver | None:
        """Who runs the study, or left it without saying goodbye."""
        return self.manifest.driver

    @property
    def is_running(self) -> bool:
        """Whether a driver is at work."""
        driver = self.driver
        return driver is not None and is_alive(self.root / "lock", driver)

    def config(self) -> StudyConfig:
        """The resolved study file, for reading: no model, data set or plugin is imported.

        What was edited in it since samtune wrote it counts from the next `resume` on.
        """
        settings = read_settings(self.root)
        unchanged = unchanged_config(settings, self._study_file())
        if unchanged and unchanged.study.mode:
            return unchanged
        document = read_yaml(self.root / "study.yaml")
        problems = Problems(document)
        config: StudyConfig = problems.validate(StudyConfig, document.value, ())
        if config and config.study.mode is None:
            problems.add(("study", "mode"), "is required in a study's own copy of its file.")
        problems.raise_if_any()
        if settings is None or settings.accepted == to_yaml(config):
            return config
        return accepted_config(settings) or config

    def _study_file(self) -> str:
        """The text of `study.yaml`; empty where it cannot be read, which `read_yaml` explains."""
        try:
            return (self.root / "study.yaml").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""

    def checked_config(
        self, plugins: Sequence[str], plugin_folder: Path, overrides: Sequence[str] = ()
    ) -> StudyConfig:
        """The resolved study file, for training: checked, with the plugins the user names.

        Args:
            overrides: `KEY=VALUE` strings that go over what the file says.

        Raises:
            SamtuneError: the study needs plugins that were not named, or its past trials would
                mean something else under what was changed.
        """
        self.check_plugins(plugins)
        document = with_overrides(read_yaml(self.root / "study.yaml"), overrides)
        refuse_searched(document, overrides)
        config = check_study(document, plugin_folder, plugins)
        self.check_changes(config)
        return config

    def check_changes(self, config: StudyConfig) -> None:
        """Raises `SamtuneError` if past trials would mean something else under these settings."""
        accepted = accepted_config(read_settings(self.root))
        if config != accepted:
            check_changes(accepted, config, list(self._records()), self.root)

    def _records(self) -> Iterator[TrialRecord]:
        """What the trials were handed out with; those that are set aside have no say."""
        for trial in self.trials():
            with contextlib.suppress(DamagedFileError):
                if record := trial.record():
                    yield record

    def check_plugins(self, plugins: Sequence[str]) -> None:
        """Raises `SamtuneError` unless the user named every plugin that the study needs."""
        missing = [module for module in self.config().plugins if module not in plugins]
        if missing:
            flags = " ".join(f"--plugin {module}" for module in missing)
            raise SamtuneError(
                f"study {self.name!r} uses {', '.join(missing)}, code that is imported only when "
                f"you say so: add {flags}"
            )

    def save_config(
        self, config: StudyConfig, session: int = 0, plugin_folder: Path | None = None
    ) -> None:
        """Writes the resolved study file, and what has changed in it since the last session."""
        write_atomically(self.root / "study.yaml", to_yaml(config).encode())
        write_settings(self.root, config, session, plugin_folder if config.plugins else None)

    def plugin_folder(self, plugins: Sequence[str]) -> Path:
        """Where to look for modules the user names: here if they are here, else where they were.

        Nothing is imported because a study's folder says so: without a name from the user this
        folder is of no use.
        """
        here = Path.cwd()
        if holds_plugins(here, plugins):
            return here
        settings = read_settings(self.root)
        return Path(settings.plugin_folder) if settings and settings.plugin_folder else here

    def command(self, verb: str, rest: str = "") -> str:
        """What to type for this study, with `--storage` and `--plugin` where they are needed."""
        name = self.name
        plugins: list[str] = []
        given: list[str] = []
        if verb in ("resume", "confirm", "export", "sharpness", "sync"):
            config = self.config()
            plugins = config.plugins
            given = [n for n in (*config.model_names, config.trial.dataset.name) if "@" in n]
            if verb == "resume" and config.belongs_to:
                verb, name = "confirm" if config.confirm else verb, config.belongs_to
        words = ["samtune", verb, name, rest]
        if self.root.parent != DEFAULT_STORAGE.absolute():
            words.append(f"--storage {address(self.root.parent)}")
        words += [f"--plugin {module}" for module in plugins]
        words += [f"--plugin MODULE_WITH_{name.partition('@')[0]}" for name in given]
        return " ".join(word for word in words if word)

    @property
    def _trials(self) -> Path:
        return self.root / "trials"

    def trial(self, key: str) -> TrialFolder:
        """One trial's folder, there or not."""
        return TrialFolder(self._trials / key, self.study_id)

    def trials(self, begun: Container[str] = ()) -> list[TrialFolder]:
        """The trials that were handed out, damaged ones too, in order.

        Args:
            begun: the keys of trials that the caller knows were handed out.

        Raises:
            SamtuneError: they are gone, so that new trials could take their place.
        """
        if not self._trials.is_dir():
            raise SamtuneError(
                f"{self._trials} is gone, and with it every trial of study {self.name!r}: restore "
                f"it from a backup, or remove {self.root} and start anew with `samtune run`"
            )
        with os.scandir(self._trials) as entries:
            found = [entry for entry in entries if _TRIAL.fullmatch(entry.name)]
        for entry in found:
            if entry.is_symlink():
                self.refuse_link(Path(entry.path))
        keys = [entry.name for entry in found if entry.name in begun or _is_begun(entry)]
        trials = self._trials
        return [TrialFolder(trials / key, self.study_id) for key in sorted(keys, key=trial_number)]

    def next_number(self) -> int:
        """The number of the next trial to be sampled; a damaged trial keeps its own."""
        return 1 + max((trial_number(trial.key) for trial in self.trials()), default=0)

    def set_archived(self, archived: bool) -> None:
        """Marks the study as put away, or as back again.

        Raises:
            SamtuneError: a driver holds it.
        """
        with self.held() as manifest:
            self.write_manifest(replace(manifest, archived=archived))

    def note_test_reading(self, reading: Reading) -> None:
        """Writes down that the test split is read, or was; one of the same confirmation goes.

        Raises:
            SamtuneError: a driver holds the study.
        """
        with self.session():
            manifest = self.manifest
            others = [
                known
                for known in manifest.test_readings
                if known.confirmation_id != reading.confirmation_id or known.done
            ]
            self.write_manifest(replace(manifest, test_readings=[*others, reading]))

    @contextlib.contextmanager
    def session(self, *, force_unlock: bool = False) -> Iterator[int]:
        """Holds the study for this process and yields the number of its new session.

        Raises:
            SamtuneError: another driver holds it.
        """
        with self.held(force_unlock=force_unlock) as manifest:
            if manifest.archived:
                back = self.command("unarchive")
                raise SamtuneError(f"study {self.name!r} is archived: bring it back with `{back}`")
            if manifest.renaming and manifest.renaming.new == self.name:
                raise SamtuneError(
                    f"study {self.name!r} was {manifest.renaming.old!r}, and its confirmations do "
                    f"not know yet: end what runs, and look with `{self.command('show')}`"
                )
            number = manifest.session + 1
            held = replace(manifest, session=number, driver=Driver.this_process())
            self.write_manifest(held)
            try:
                yield number
            finally:
                now = read_json(current(self.root / "manifest.json"), Manifest)
                if now and (now.study_id, now.session) == (self.study_id, number):
                    self.write_manifest(replace(now, driver=None))

    @contextlib.contextmanager
    def held(self, *, force_unlock: bool = False) -> Iterator[Manifest]:
        """Keeps drivers and whatever changes the study away from it while the body runs.

        Raises:
            SamtuneError: another process holds it.
        """
        self._refuse_links()
        with self.locked(force=force_unlock):
            current(self.root / "manifest.json")
            manifest = self.manifest
            self.study_id = self.study_id or manifest.study_id
            self._check_identity(manifest)
            self.refuse_elsewhere(manifest, force_unlock=force_unlock)
            yield manifest

    @contextlib.contextmanager
    def locked(self, *, force: bool = False) -> Iterator[None]:
        """Holds the lock, which a driver of this machine would have; in a bucket, any driver.

        Args:
            force: take it even from a driver that seems to live, where one can.

        Raises:
            SamtuneError: another process has it.
        """
        lock = lock_of(self.root / "lock", timeout=0, force=force)
        try:
            lock.acquire()
        except Timeout:
            current(self.root / "manifest.json")
            holder = self.driver or "another command, such as `samtune gc`"
            raise SamtuneError(f"study {self.name!r} is being run by {holder}.") from None
        try:
            yield
        finally:
            lock.release()

    def refuse_elsewhere(self, manifest: Manifest, *, force_unlock: bool) -> None:
        """Raises `SamtuneError` if a driver of another machine has it, whose lock may not show."""
        driver = manifest.driver
        if is_copy(self.root):
            return  # the lease reaches every machine
        if driver and not driver.is_local and not force_unlock:
            raise SamtuneError(
                f"study {self.name!r} is being run by {driver}. If that process is surely gone, "
                "add --force-unlock."
            )

    def refuse_link(self, path: Path) -> None:
        """Raises `SamtuneError` for a link, which may lead out of the storage."""
        if path.is_symlink():
            raise SamtuneError(
                f"{path} is a link, and a study's files all lie in its own folder: put what it "
                f"points at ({path.resolve()}) in its place, or name the folder that holds it "
                "with --storage"
            )

    def _refuse_links(self) -> None:
        """Looks through the whole folder before anything is written in it."""
        folders = [str(self.root)]
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        self.refuse_link(Path(entry.path))
                    if entry.name != ".tune" and entry.is_dir():
                        folders.append(entry.path)

    def check_session(self, session: int) -> None:
        """Raises `FencedError` if a newer session, or another study, has taken the folder over.

        Raises:
            OSError: the folder is not there, for now or for good.
        """
        manifest = read_json(current(self.root / "manifest.json"), Manifest)
        if manifest is None:
            raise OSError(f"{address(self.root)} is not there: is its storage still connected?")
        self._check_identity(manifest)
        if manifest.session > session:
            raise FencedError(
                f"another driver has taken over study {self.name!r}: {manifest.driver}"
            )

    def remove_if_untouched(self) -> None:
        """Removes this very study if it has handed out no trial, as far as that can be told."""
        with contextlib.suppress(OSError, SamtuneError):
            self.fetch()
            self._check_identity(self.manifest)
            if not any(self._trials.iterdir()):
                delete_folder(self.root)
                shutil.rmtree(self.root)

    def _check_identity(self, manifest: Manifest) -> None:
        if self.study_id and manifest.study_id != self.study_id:
            raise FencedError(
                f"{self.root} was removed, and another study of the same name begun in its place; "
                "this one writes nothing more"
            )

    def tune_folder(self, session: int) -> Path:
        """Where Ray Tune may keep its own files for one session; nothing is read from there."""
        return self.root / ".tune" / f"session-{session}"

    def remove_tune_folders(self) -> None:
        """Clears away what earlier sessions' Ray Tune left."""
        delete_folder(self.root / ".tune")
        shutil.rmtree(self.root / ".tune", ignore_errors=True)


def _is_begun(trial: os.DirEntry[str]) -> bool:
    return any(os.path.exists(f"{trial.path}/{name}") for name in ("trial.json", "epochs.jsonl"))


def check_name(name: str) -> None:
    """Raises `SamtuneError` if no study can be called so."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise SamtuneError(f"{name!r} is no study name: {NAME_RULE}")


def study_names(storage: Path) -> list[str]:
    """The studies in a storage folder, damaged ones too.

    Raises:
        SamtuneError: `storage` is no folder.
    """
    if is_copy(storage):
        return fetching.study_names(storage)
    if not storage.exists():
        return []
    if not storage.is_dir():
        raise SamtuneError(f"storage {storage} is no folder; name the one that holds the studies")
    with os.scandir(storage) as entries:
        paths = [entry.path for entry in entries]
    found = [p for p in paths if any(os.path.exists(f"{p}/{file}") for file in STUDY_FILES)]
    names = [os.path.basename(path) for path in found]
    return sorted(name for name in names if re.fullmatch(NAME_PATTERN, name))
