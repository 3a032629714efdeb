"""Starts Ray, hands a study to Ray Tune, and ends it cleanly whatever ends it."""

from __future__ import annotations

import contextlib
import functools
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samtune import tracking
from samtune.config.schema import StudyConfig
from samtune.config.study_file import read_study
from samtune.errors import EndedEarlyError, NoUsableTrialError, SamtuneError
from samtune.registry import DATASETS, code_to_give, holds_plugins
from samtune.study.folder import DEFAULT_STORAGE, StudyFolder
from samtune.study.manifest import installed_versions
from samtune.study.renaming import open_folder
from samtune.study.requests import WHOLE_STUDY, heeded
from samtune.study.storage import storage_path
from samtune.study.study import Study
from samtune.study.trial_folder import Outcome
from samtune.tuning.cluster import (
    Place,
    check_address,
    connected,
    demanded,
    is_given,
    ships_code,
)
from samtune.tuning.lost import LostWorkers
from samtune.tuning.nodes import Nodes, Question, ask
from samtune.tuning.search import Listener, Search
from samtune.tuning.signals import Signals, handled_signals, time_budget
from samtune.working_copy import address

if TYPE_CHECKING:
    from samtune.tuning.trial import SharedData


class Interrupted(SamtuneError):
    """A signal ended the session; all finished epochs are safe."""

    def __init__(self, folder: StudyFolder, signum: int) -> None:
        self.folder = folder
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

    def on_interrupt(self) -> None:
        """Nothing."""

    def on_cluster(self, sentence: str) -> None:
        """Nothing."""

    def on_wait(self, key: str, reason: str) -> None:
        """Nothing."""

    def on_set_aside(self, key: str, reason: str) -> None:
        """Nothing."""


def run_study(
    study: StudyConfig | str | Path,
    *,
    storage: str | Path = DEFAULT_STORAGE,
    address: str | None = None,
    listener: Listener | None = None,
    plugin_folder: Path | None = None,
    time_budget_s: float | None = None,
    wait_for_resources_s: float = 0.0,
    owns_process: bool = True,
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
        wait_for_resources_s: how long to wait for a first node that holds a trial.
        owns_process: whether a second Ctrl-C may end the process.

    Raises:
        SamtuneError: the study exists, or its resources are not there.
        NoUsableTrialError: every trial has ended, and none can be used.
        EndedEarlyError: too many trials failed, or the storage did for too long.
        Interrupted: a signal ended the session.
    """
    if not isinstance(study, StudyConfig):
        plugin_folder = plugin_folder or Path(study).absolute().parent
    session = Session(
        address,
        listener or Silent(),
        plugin_folder,
        time_budget_s,
        wait_for_resources_s,
        owns_process=owns_process,
    )
    config = study if isinstance(study, StudyConfig) else read_study(Path(study))
    return session.begin(config, storage_path(storage))


def resume_study(
    name: str,
    *,
    storage: str | Path = DEFAULT_STORAGE,
    more_trials: int = 0,
    retry_failed: bool = False,
    address: str | None = None,
    listener: Listener | None = None,
    plugins: Sequence[str] = (),
    plugin_folder: Path | None = None,
    overrides: Sequence[str] = (),
    force_unlock: bool = False,
    time_budget_s: float | None = None,
    wait_for_resources_s: float = 0.0,
    owns_process: bool = True,
) -> Study:
    """Goes on with a study after any ending, from its journals.

    Args:
        more_trials: how many trials to add to what the study was to have.
        retry_failed: run the trials again that failed or had too little memory.
        plugins: the user's own modules that the study needs; a folder alone cannot name them.
        plugin_folder: where they are looked for; None is here, else where the study found them.
        overrides: `KEY=VALUE` strings, for settings that leave past trials what they are.
        force_unlock: take over from a driver on another machine that is surely gone.
        owns_process: whether a second Ctrl-C may end the process.
    """
    folder = open_folder(storage_path(storage), name)
    plugin_folder = plugin_folder or folder.plugin_folder(plugins)
    config = extended(folder.checked_config(plugins, plugin_folder, overrides), more_trials)
    session = Session(
        address,
        listener or Silent(),
        plugin_folder,
        time_budget_s,
        wait_for_resources_s,
        force_unlock,
        retry_failed,
        owns_process,
    )
    return session.run(folder, config)


def extended(config: StudyConfig, more_trials: int) -> StudyConfig:
    """The same study with more trials."""
    search = config.study.model_copy(update={"trials": config.study.trials + more_trials})
    return config.model_copy(update={"study": search})


@dataclass(frozen=True)
class Session:
    """One session of a study: how it is to be run.

    Raises:
        SamtuneError: no study can be run at this address.
    """

    address: str | None = None
    listener: Listener = field(default_factory=Silent)
    plugin_folder: Path | None = None
    time_budget_s: float | None = None
    wait_for_resources_s: float = 0.0
    force_unlock: bool = False
    retry_failed: bool = False
    owns_process: bool = True

    def __post_init__(self) -> None:
        check_address(self.address)

    def begin(self, config: StudyConfig, storage: Path) -> Study:
        """Runs a new study; what cannot start has not taken its name."""
        folder = StudyFolder.create(storage, config, self.plugin_folder)
        try:
            return self.run(folder, config)
        except Interrupted:
            raise
        except SamtuneError:
            folder.remove_if_untouched()
            raise

    def run(self, folder: StudyFolder, config: StudyConfig) -> Study:
        """Goes on with a study under settings that its past trials were held against."""
        given = code_to_give(config.model_names, [config.trial.dataset.name])
        with (
            folder.session(force_unlock=self.force_unlock) as number,
            handled_signals(owns_process=self.owns_process) as signals,
        ):
            folder.save_config(config, number, self.plugin_folder)
            if self.retry_failed:
                for trial in Study(folder, config).failed:
                    trial.folder.reopen()
            search = signals.search = Search(folder, config, number, self.listener)
            if not search.to_run and search.has_decided:
                with self._following(folder, config, given):
                    pass  # there is nothing to run, and something to tell
            if search.to_run:
                shipped = self._shipped(config)
                with connected(self.address, shipped) as ray, self._demand(config, search):
                    shared, paths = _shared_data(ray, config)
                    question = self._question(ray, search, paths, shipped)
                    nodes = Nodes(
                        config.study.resources,
                        ray.nodes,
                        functools.partial(ask, ray, question),
                        self.listener.on_cluster,
                    )
                    place = nodes.wait(self.wait_for_resources_s)
                    with (
                        self._following(folder, config, given),
                        time_budget(self.time_budget_s, signals),
                        heeded(folder, number, functools.partial(_heed, search, signals)),
                    ):
                        for_all = {"shared": shared, "question": question, "given": given}
                        self._tune(search, place, nodes, signals, for_all)
        study = Study(folder, config)
        if signals.received:
            raise Interrupted(folder, signals.received)
        if study.left and search.failures.verdict:
            raise EndedEarlyError(
                f"{search.failures.verdict}, so the study was ended.{_first_failure(study)} Once "
                f"that is mended, go on with `{folder.command('resume', '--retry-failed')}`."
            )
        if search.set_aside:
            reason = next(iter(search.set_aside.values()))
            raise EndedEarlyError(
                f"{', '.join(search.set_aside)} could not be written down: {reason}. All printed "
                f"epochs are safe. Once that is mended, go on with `{folder.command('resume')}`."
            )
        check_usable(study)
        return study

    def _following(
        self, folder: StudyFolder, config: StudyConfig, given: bytes
    ) -> contextlib.AbstractContextManager[None]:
        return tracking.following(folder.root, config.plugins, self.plugin_folder, given)

    def _shipped(self, config: StudyConfig) -> Path | None:
        """The folder whose code the nodes get from here; None where they have it, or need none."""
        folder = self.plugin_folder or Path.cwd()
        ships = ships_code(self.address) and holds_plugins(folder, config.plugins)
        return folder if ships else None

    def _demand(
        self, config: StudyConfig, search: Search
    ) -> contextlib.AbstractContextManager[None]:
        """What an autoscaler is told that the study needs."""
        if not is_given(self.address):
            return contextlib.nullcontext()
        return demanded(config.study.resources, search.to_run)

    def _question(
        self, ray: Any, search: Search, paths: list[str], shipped: Path | None
    ) -> Question:
        folder = search.folder
        folder.remove_tune_folders()
        probe = folder.tune_folder(search.session).with_name(f"nodes-{search.session}")
        probe.mkdir(parents=True)
        question = Question(
            driver=ray.get_runtime_context().get_node_id(),
            versions=installed_versions(),
            plugins=search.config.plugins,
            plugin_folder=None if shipped else self.plugin_folder or Path.cwd(),
            probe=address(probe),
            token=secrets.token_hex(8),
            paths=paths,
        )
        question.leave("driver")
        return question

    def _tune(
        self,
        search: Search,
        place: Place,
        nodes: Nodes,
        signals: Signals,
        for_all: dict[str, Any],
    ) -> None:
        """Runs the trials; what is for all of them goes through Ray's object store."""
        from ray import tune

        from samtune.tuning.adapters import (
            Guard,
            NoReporter,
            Placement,
            TuneCallback,
            TuneScheduler,
            TuneSearcher,
        )
        from samtune.tuning.trial import TrialActor

        folder = search.folder
        tune_folder = folder.tune_folder(search.session)
        guard = Guard(stop=signals.stop)
        common = {
            "study": address(folder.root),
            "study_id": folder.study_id,
            "session": search.session,
            "cpus": place.cpus,
            "gpus": place.gpus,
            "storage_wait": search.config.study.storage_wait,
            "epoch_timeout": search.config.study.epoch_timeout,
        }
        worker = tune.with_parameters(TrialActor, **for_all)
        lost = LostWorkers(nodes.is_at_fault)
        tuner = tune.Tuner(
            worker,
            tune_config=tune.TuneConfig(
                search_alg=TuneSearcher(search, common, nodes.slots, guard),
                scheduler=TuneScheduler(search, Placement(place, nodes), lost, guard),
                num_samples=search.to_run,
                reuse_actors=True,
                trial_name_creator=_ray_id,
                trial_dirname_creator=_ray_id,
            ),
            run_config=tune.RunConfig(
                name=tune_folder.name,
                storage_path=str(tune_folder.parent),
                # By default Ray saves a class trainable when it ends; the journal has everything.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=-1),  # `LostWorkers` counts
                callbacks=[TuneCallback(search, guard)],
                progress_reporter=NoReporter(),
                verbose=0,
            ),
        )
        with signals.during_tune():
            tuner.fit()
        folder.remove_tune_folders()
        # A pipe is no storage: who prints knows what to say of one that broke.
        if isinstance(guard.error, OSError) and not isinstance(guard.error, BrokenPipeError):
            raise EndedEarlyError(
                f"no trial could be handed out for {search.config.study.storage_wait:g} s: "
                f"{guard.error}. All printed epochs are safe. Once that is mended, go on with "
                f"`{folder.command('resume')}`."
            ) from guard.error
        if guard.error is not None:
            raise guard.error
        search.finish()


def _heed(search: Search, signals: Signals, asked: set[str]) -> None:
    """Does what `samtune stop` asks for."""
    for key in asked - {WHOLE_STUDY}:
        search.stop_trial(key)
    if WHOLE_STUDY in asked:
        signals.ask_to_end()


def check_usable(study: Study) -> None:
    """Raises `NoUsableTrialError` for a study that is done and has no trial to show for it."""
    if study.best is None and not study.left:
        raise NoUsableTrialError(
            f"no trial of study {study.name!r} can be used: {study.tally}."
            f"{_first_failure(study)} Once that is mended, go on with "
            f"`{study.folder.command('resume', '--retry-failed')}`."
        )


def _ray_id(trial: Any) -> str:
    return str(trial.trial_id)


def _shared_data(ray: Any, config: StudyConfig) -> tuple[SharedData | None, list[str]]:
    """The data set in Ray's object store, and the paths that each worker reads all the same.

    It is read once, and held once by each node; where trials differ in their data set there is
    none, and every worker reads its own.
    """
    from samtune.data import Images, dataset_problems, open_dataset
    from samtune.tuning.trial import SharedData

    dataset = config.trial.dataset
    schema = DATASETS[dataset.name].schema.model_fields
    paths = [str(v) for k, v in dataset.params.items() if v and schema[k].annotation is Path]
    if any(path.startswith("dataset.") for path in config.search_space):
        return None, paths
    splits = open_dataset(dataset.name, dataset.params)
    in_memory = isinstance(splits.train, Images) and isinstance(splits.val, Images)
    with dataset_problems(dataset.name):  # one that cannot be padded, pickled or stored
        return SharedData(ray.put(splits.to_share())), [] if in_memory else paths


def _first_failure(study: Study) -> str:
    for trial in study.failed[:1]:
        reason = trial.outcome.reason if trial.outcome else ""
        logs = study.folder.command("logs", trial.key)
        return f" The first, {trial.key}: {reason}. See `{logs}`."
    return ""


__all__ = ["Interrupted", "resume_study", "run_study"]
