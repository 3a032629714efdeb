"""Starts Ray, hands a study to Ray Tune, and ends it cleanly whatever ends it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from samtune import tracking
from samtune.config import ResourcesConfig, StudyConfig
from samtune.errors import NoUsableTrialError, SamtuneError
from samtune.study.folder import DEFAULT_STORAGE, Outcome, StudyFolder
from samtune.study.study import Study
from samtune.study_file import read_study
from samtune.tuning.search import Listener, Search

if TYPE_CHECKING:
    from samtune.tuning.trial import SharedData

WORKER_RETRIES = 3
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Read by Ray when it is imported or started; facts of Ray 2.60 that nothing else switches.
ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths stay what they were
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files per trial
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Ray's own snapshots: nothing here depends on them
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `_signals` below
    "TUNE_WARN_THRESHOLD_S": "5",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class Interrupted(SamtuneError):
    """A signal ended the session; all finished epochs are safe."""

    def __init__(self, folder: StudyFolder, signum: int) -> None:
        self.exit_code = 128 + signum
        super().__init__(f"Interrupted. Go on with: {folder.command('resume')}")


class Silent:
    """A listener that says nothing."""

    def on_start(self, key: str, values: dict[str, Any], epochs_done: int) -> None:
        """Nothing."""

    def on_epoch(self, key: str, epoch: int, metrics: dict[str, float], duration_s: float) -> None:
        """Nothing."""

    def on_end(self, key: str, outcome: Outcome, value: float | None) -> None:
        """Nothing."""

    def on_retry(self, key: str, reason: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Slots:
    """How many trials fit into a cluster, and what each of them gets."""

    trials: int
    cpus: int
    gpus: float


def run_study(
    study: StudyConfig | str | Path,
    *,
    storage: str | Path = DEFAULT_STORAGE,
    address: str | None = None,
    listener: Listener | None = None,
    plugin_folder: Path | None = None,
    time_budget_s: float | None = None,
) -> Study:
    """Runs a new study to its end and returns it for reading.

    A program that has started Ray itself keeps it; Tune then keeps the study's data set in its
    object store until that Ray is shut down.

    Args:
        study: a study file's path, or what `read_study` made of one.
        storage: the folder that holds studies; on a cluster, one that every node sees.
        address: a Ray cluster's address; None is RAY_ADDRESS if set, else Ray on this machine.
        listener: is told of every epoch; None runs silently.
        plugin_folder: where plugins are looked for besides the installed packages.
        time_budget_s: end cleanly after this many seconds; the study can be resumed.

    Raises:
        SamtuneError: the study exists, or its resources are not there.
        NoUsableTrialError: no trial can be used, or too many failed.
        Interrupted: a signal ended the session.
    """
    if not isinstance(study, StudyConfig):
        plugin_folder = plugin_folder or Path(study).absolute().parent
        study = read_study(Path(study))
    folder = StudyFolder.create(Path(storage), study)
    session = _Session(address, listener or Silent(), plugin_folder, time_budget_s)
    return session.run(folder, study)


def resume_study(
    name: str,
    *,
    storage: str | Path = DEFAULT_STORAGE,
    more_trials: int = 0,
    address: str | None = None,
    listener: Listener | None = None,
    plugins: Sequence[str] = (),
    plugin_folder: Path | None = None,
    force_unlock: bool = False,
    time_budget_s: float | None = None,
) -> Study:
    """Goes on with a study after any ending, from its journals.

    Args:
        more_trials: how many trials to add to what the study was to have.
        plugins: the user's own modules that the study needs; a folder alone cannot name them.
        force_unlock: take over from a driver on another machine that is surely gone.
    """
    folder = StudyFolder.open(Path(storage), name)
    config = extended(folder.checked_config(plugins, plugin_folder or Path.cwd()), more_trials)
    session = _Session(address, listener or Silent(), plugin_folder, time_budget_s, force_unlock)
    return session.run(folder, config)


def extended(config: StudyConfig, more_trials: int) -> StudyConfig:
    """The same study with more trials."""
    search = config.study.model_copy(update={"trials": config.study.trials + more_trials})
    return config.model_copy(update={"study": search})


@dataclass(frozen=True)
class _Session:
    """One session of a study: how it is to be run."""

    address: str | None
    listener: Listener
    plugin_folder: Path | None
    time_budget_s: float | None
    force_unlock: bool = False

    def run(self, folder: StudyFolder, config: StudyConfig) -> Study:
        with folder.session(force_unlock=self.force_unlock) as number, _signals() as signals:
            folder.save_config(config)
            search = signals.search = Search(folder, config, number, self.listener)
            if search.to_run:
                with (
                    tracking.following(folder.root, config.plugins, self.plugin_folder),
                    _ray(self.address) as ray,
                ):
                    slots = find_slots(ray.nodes(), config.study.resources)
                    shared = _shared_data(ray, config)
                    with _time_budget(self.time_budget_s, signals):
                        self._tune(search, slots, signals, shared)
        study = Study(folder, config)
        if signals.received:
            raise Interrupted(folder, signals.received)
        if search.has_given_up:
            raise NoUsableTrialError(
                f"{search.failed} trials failed, so the study was ended.{_first_failure(study)} "
                f"Go on with `{folder.command('resume')}`."
            )
        if study.best is None and not study.left:
            raise NoUsableTrialError(
                f"no trial of study {folder.name!r} can be used: {study.counts()}. "
                f"See `{folder.command('show')}`."
            )
        return study

    def _tune(
        self, search: Search, slots: Slots, signals: _Signals, shared: SharedData | None
    ) -> None:
        from ray import tune

        from samtune.tuning.adapters import Guard, TuneCallback, TuneScheduler, TuneSearcher
        from samtune.tuning.trial import TrialActor

        folder = search.folder
        folder.remove_tune_folders()
        tune_folder = folder.tune_folder(search.session)
        guard = Guard(stop=signals.stop)
        common = {
            "study": str(folder.root),
            "session": search.session,
            "cpus": slots.cpus,
            "gpus": slots.gpus,
            "plugins": search.config.plugins,
            "plugin_folder": str(self.plugin_folder or Path.cwd()),
        }
        worker = tune.with_parameters(TrialActor, shared=shared)
        tuner = tune.Tuner(
            tune.with_resources(worker, {"cpu": slots.cpus, "gpu": slots.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=TuneSearcher(search, common, guard),
                scheduler=TuneScheduler(search, guard),
                num_samples=search.to_run,
                max_concurrent_trials=slots.trials,
                reuse_actors=True,
                trial_name_creator=_ray_id,
                trial_dirname_creator=_ray_id,
            ),
            run_config=tune.RunConfig(
                name=tune_folder.name,
                storage_path=str(tune_folder.parent),
                # By default Ray saves a class trainable when it ends; the journal has everything.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=WORKER_RETRIES),
                callbacks=[TuneCallback(search, guard)],
                verbose=0,
            ),
        )
        with signals.during_tune():
            tuner.fit()
        folder.remove_tune_folders()
        if guard.error is not None:
            raise guard.error


def _ray_id(trial: Any) -> str:
    return str(trial.trial_id)


def _shared_data(ray: Any, config: StudyConfig) -> SharedData | None:
    """The data set in Ray's object store: read once, and held once by each node.

    None where trials differ in their data set; every worker then reads its own.
    """
    if any(path.startswith("dataset.") for path in config.search_space):
        return None
    from samtune.data import load_dataset
    from samtune.tuning.trial import SharedData

    dataset = config.trial.dataset
    try:
        return SharedData(ray.put(load_dataset(dataset.name, **dataset.params).to_share()))
    except (ValueError, TypeError) as error:  # TypeError: it cannot be pickled
        raise SamtuneError(f"dataset {dataset.name}: {' '.join(str(error).split())}") from error


@contextmanager
def _time_budget(seconds: float | None, signals: _Signals) -> Iterator[None]:
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, signals.stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def find_slots(nodes: Sequence[dict[str, Any]], wanted: ResourcesConfig) -> Slots:
    """How many trials run at once.

    Args:
        nodes: what `ray.nodes()` gives.

    Raises:
        SamtuneError: not even one trial fits on any node.
    """
    free = [node["Resources"] for node in nodes if node["Alive"]]
    most_cpus = int(max((node.get("CPU", 0) for node in free), default=0))
    most_gpus = max((node.get("GPU", 0.0) for node in free), default=0.0)
    gpus = (1.0 if most_gpus else 0.0) if wanted.gpus == "auto" else float(wanted.gpus)
    trials = 0
    for node in free:
        by_cpu = int(node.get("CPU", 0) // wanted.cpus)
        by_gpu = int(node.get("GPU", 0.0) / gpus + 1e-9) if gpus else by_cpu
        trials += min(by_cpu, by_gpu)
    if not trials:
        raise SamtuneError(
            f"study.resources asks for {wanted.cpus} CPUs and {gpus:g} GPUs a trial, but the "
            f"largest node has {most_cpus} CPUs and {most_gpus:g} GPUs. Ask for less, or name a "
            "cluster with --address."
        )
    return Slots(trials, wanted.cpus, gpus)


def usable_cpus() -> int:
    """The CPUs this process may use, which a batch system may have made fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _ray(address: str | None) -> Iterator[Any]:
    """Ray for the time of one session, quiet, on this machine or a cluster."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.pop("RAY_TUNE_CALLBACKS", None)  # it would import and run whatever it names
    import ray

    if ray.is_initialized():  # a program that brings its own Ray keeps it
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        options |= {"include_dashboard": False, "num_cpus": usable_cpus()}
    try:
        # "local", since without an address Ray would join a cluster it finds on this machine.
        ray.init(address=address or "local", **options)
    except Exception as error:
        where = f"Ray cluster at {address}" if address else "local Ray"
        raise SamtuneError(
            f"{where} cannot be reached: {' '.join(str(error).split())[:300]}. If it asks for a "
            "token, set RAY_AUTH_TOKEN, or RAY_AUTH_MODE=disabled for a cluster without one."
        ) from error
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are the listener's to tell
    try:
        yield ray
    finally:
        ray.shutdown()


class _Signals:
    """Ctrl-C, SIGTERM and SIGHUP end a session cleanly; a second one ends it at once."""

    def __init__(self) -> None:
        self.received = 0
        self.search: Search | None = None
        self._in_tune = False
        self._before: dict[int, Any] = {}

    def handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received:
            os._exit(128 + signum)  # the journals are the truth, and they are on the disk
        self.received = signum
        if self._in_tune:
            self.stop()
        else:
            raise KeyboardInterrupt

    def install(self) -> None:
        """Handles the signals here, but for those that `nohup` or a shell has switched off."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python lets only the main thread handle signals
        for number in HANDLED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before.setdefault(number, signal.signal(number, self.handle))
        # Tune puts its own handler later; until then the signal must not end the process.
        nothing = signal.signal(signal.SIGUSR1, lambda *_: None)
        self._before.setdefault(signal.SIGUSR1, nothing)

    def restore(self) -> None:
        """Leaves the signals as they were found."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stop(self) -> None:
        """Ends the session: at once where Tune takes the signal, else after the current epochs."""
        if self.search:
            self.search.stop()
        if self._in_tune and self._before:
            os.kill(os.getpid(), signal.SIGUSR1)

    @contextmanager
    def during_tune(self) -> Iterator[None]:
        self.install()  # anew, since `ray.init` has put its own handler for SIGTERM
        self._in_tune = True
        try:
            yield
        finally:
            self._in_tune = False


@contextmanager
def _signals() -> Iterator[_Signals]:
    signals = _Signals()
    signals.install()
    try:
        yield signals
    except KeyboardInterrupt:
        if not signals.received:
            raise
    finally:
        signals.restore()


def _first_failure(study: Study) -> str:
    for trial in study.trials:
        if trial.state in ("failed", "out_of_memory") and trial.outcome:
            logs = study.folder.command("logs", trial.key)
            return f" The first, {trial.key}: {trial.outcome.reason}. See `{logs}`."
    return ""


__all__ = ["Interrupted", "find_slots", "resume_study", "run_study"]
