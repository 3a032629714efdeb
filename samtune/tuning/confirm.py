"""`samtune confirm`: the finalists of a study and their baselines again, with paired seeds.

A confirmation is a study of its own, NAME-confirm, whose trials are known beforehand
(`samtune.config.confirm`): journal, resume, lost workers and MLflow are those of every study. What
it found (`confirm.json`) is made anew each time from its trials and `test.json`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from samtune.analysis.confirmed import Confirmed, confirmed, held_out_name
from samtune.analysis.tuned import tuned_in_words
from samtune.config.checked_trial import trial_with
from samtune.config.confirm import ConfirmConfig, Finalist, Settings, TunedBaseline
from samtune.config.schema import SchedulerConfig, SearchConfig, StudyConfig
from samtune.data import open_dataset
from samtune.errors import SamtuneError
from samtune.files import write_json
from samtune.study.folder import StudyFolder, check_name
from samtune.study.held_out import check_unread, read_test
from samtune.study.manifest import CONFIRM_FILE
from samtune.study.study import Study, Trial
from samtune.working_copy import current

TOP = 3
SEEDS = 5
OF_A_SEARCH = {
    "metrics",
    "try_first",
    "warm_start",
    "audit",
    "time_budget",
    "device_budget",
    "gradient_budget",
    "target",
}


@dataclass(frozen=True)
class Wanted:
    """What the user asks for; None is the default, or what the confirmation was begun with."""

    top: int | None = None
    seeds: int | None = None
    with_validation: bool | None = None
    read_test_again: bool = False


def plan(
    searched: StudyFolder, config: StudyConfig, name: str, wanted: Wanted
) -> tuple[StudyFolder | None, StudyConfig]:
    """The confirmation that there is, or the settings of the one to begin.

    Args:
        config: the searched study's, checked.
        name: the confirmation's.

    Raises:
        SamtuneError: the study has no finalists or is still running, the confirmation was begun
            with other settings, or the test split was read before.
    """
    if config.belongs_to:
        kind = "itself a confirmation" if config.confirm else "a tuned baseline"
        raise SamtuneError(
            f"study {searched.name!r} is {kind}: name the study that it is of, "
            f"{config.belongs_to!r}"
        )
    check_name(name)
    storage = searched.root.parent
    if current(storage / name / "manifest.json").exists():
        folder = StudyFolder.open(storage, name)
        begun = folder.config()
        _check_same(searched, folder, begun, wanted)
        if not wanted.read_test_again:
            check_unread(searched, folder.study_id)
        return folder, begun
    if not wanted.read_test_again:
        check_unread(searched, None)
    study = Study(searched, config)
    if study.is_running:
        raise SamtuneError(
            f"study {searched.name!r} is being run by {searched.driver}: confirm it once it is done"
        )
    new = _new(study, name, wanted)
    if new.trial.training.with_validation:
        open_dataset(new.trial.dataset.name, new.trial.dataset.params).with_validation()
    return None, new


def conclude(searched: StudyFolder, confirmation: Study, *, again: bool = False) -> Confirmed:
    """Reads the test split once, and writes what the confirmation found.

    Raises:
        SamtuneError: the test split was read before, or cannot be read.
    """
    read = read_test(searched, confirmation, again=again)
    metric = held_out_name(confirmation.metric)
    scores = {key: score.metrics[metric] for key, score in read.trials.items()}
    found = confirmed(confirmation.config, confirmation.trials, scores, read.images)
    root = confirmation.folder.root
    about = {"read_at": read.at, "read_by": read.by}
    write_json(root / CONFIRM_FILE, {**found.as_json(), **about})
    return found


def finalists(study: Study, top: int) -> list[Finalist]:
    """The best trials with SAM, by the study's ranking, with distinct settings."""
    chosen: list[Trial] = []
    for trial in study.ranking:
        is_new = all(trial.values != other.values for other in chosen)
        if not trial.is_baseline and trial.config.sam.rho > 0 and is_new:
            chosen.append(trial)
    return [_finalist(study.config, trial) for trial in chosen[:top]]


def _finalist(config: StudyConfig, trial: Trial) -> Finalist:
    training = trial.config.training
    # SAM's other settings say nothing where rho is 0; without them finalists share baselines.
    alone = {path: value for path, value in trial.values.items() if not path.startswith("sam.")}
    equal_epochs: Settings = {"sam.rho": 0.0, **alone}
    equal_compute = dict(equal_epochs)
    gradients = training.epochs * trial.config.sam.gradients_per_step(training.epochs)
    epochs = math.ceil(gradients - 1e-9)
    if epochs > training.epochs:
        equal_compute["training.epochs"] = epochs
    for settings in (trial.values, equal_epochs, equal_compute):
        trial_with(config, settings)
    return Finalist(
        trial=trial.key,
        values=trial.values,
        equal_epochs=equal_epochs,
        equal_compute=equal_compute,
    )


def _tuned(study: Study) -> TunedBaseline | None:
    """The best of the study's tuned baseline, where it has one.

    Raises:
        SamtuneError: it is to be tuned, and was not to its end.
    """
    if study.config.study.baseline != "tuned":
        return None
    tuned = study.tuned_baseline
    if tuned is None or tuned.left or tuned.best is None:
        raise SamtuneError(
            f"{tuned_in_words(study)} To confirm without it: "
            f"`{study.folder.command('resume', 'study.baseline=true')}` first."
        )
    settings: Settings = {"sam.rho": 0.0, **tuned.best.values}
    trial_with(study.config, settings)
    return TunedBaseline(
        study=tuned.name, trial=tuned.best.key, trials=len(tuned.trials), settings=settings
    )


def _new(study: Study, name: str, wanted: Wanted) -> StudyConfig:
    config, assumed = study.config, study.folder.study_id
    tuned = _tuned(study)
    found = finalists(study, wanted.top or TOP)
    if not found:
        raise SamtuneError(
            f"study {study.name!r} has no trial with SAM to confirm ({study.tally}): go on with "
            f"`{study.folder.command('resume')}`"
        )
    assert assumed is not None
    first = config.trial.training.seed + 1  # none that the search has trained with
    training = config.trial.training.model_copy(
        update={"with_validation": bool(wanted.with_validation)}
    )
    # Every run is trained to its end, whatever the search was given or had enough of.
    search = {
        name: getattr(config.study, name) for name in set(SearchConfig.model_fields) - OF_A_SEARCH
    }
    search |= {"baseline": False, "scheduler": SchedulerConfig(name="none")}
    if wanted.with_validation:
        search["select"] = "last"
    confirm = ConfirmConfig(
        study=study.name,
        study_id=assumed,
        top=wanted.top or TOP,
        seeds=[(first + i) % 2**32 for i in range(wanted.seeds or SEEDS)],
        finalists=found,
        tuned=tuned,
    )
    search["trials"] = len(confirm.runs)
    return config.model_copy(
        update={
            "name": name,
            "trial": config.trial.model_copy(update={"training": training}),
            "search_space": {},
            "study": SearchConfig(**search),
            "confirm": confirm,
        }
    )


def _check_same(
    searched: StudyFolder, folder: StudyFolder, begun: StudyConfig, wanted: Wanted
) -> None:
    """Refuses to go on with a confirmation that is another than the one asked for."""
    confirm = begun.confirm
    if confirm is None or confirm.study_id != searched.study_id:
        of = "no confirmation" if confirm is None else "the confirmation of another study"
        raise SamtuneError(
            f"{folder.root} holds {of}: take another name with --name, or move that folder away"
        )
    has = Wanted(confirm.top, len(confirm.seeds), begun.trial.training.with_validation)
    same = all(
        asked is None or asked == is_so
        for asked, is_so in (
            (wanted.top, has.top),
            (wanted.seeds, has.seeds),
            (wanted.with_validation, has.with_validation),
        )
    )
    if not same:
        words = f"--top {has.top} --seeds {has.seeds}"
        words += " --with-validation" if has.with_validation else ""
        raise SamtuneError(
            f"confirmation {folder.name!r} was begun with {words}: go on with just these, or begin "
            "another under --name; it has to say --read-test-again once the test split was read"
        )
