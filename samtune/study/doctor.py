"""Is a study whole? Every file is looked at, and compared with what the journals say of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from samtune.errors import SamtuneError, UnknownNameError
from samtune.files import TEMPORARY
from samtune.study.damage import Damage
from samtune.study.folder import StudyFolder
from samtune.study.journal import Journal
from samtune.study.study import Study, Trial
from samtune.study.trial_folder import KEPT_STATES

LEFT = "was left by a process that was killed"


def examine(storage: Path, name: str) -> list[Damage]:
    """Everything that is not as it should be in a study.

    Of a trial that is at work only the journal and the best weights are looked at: its other files
    change meanwhile.

    Raises:
        UnknownNameError: there is no study of this name.
    """
    try:
        folder = StudyFolder.open(storage, name)
        study = Study(folder, folder.config(), whole=True)
    except UnknownNameError:
        raise
    except SamtuneError as error:
        return [
            Damage(name, f"cannot be read: {' '.join(str(error).split())}", "no verb can go on")
        ]
    found = list(study.damage)
    for trial in study.trials:
        found += _examine_trial(trial, study)
    return found + list(_left_behind(study))


def _examine_trial(trial: Trial, study: Study) -> Iterator[Damage]:
    folder, where = trial.folder, f"trials/{trial.key}"
    if late := Journal(folder.journal).read().late:
        found = f"holds lines of workers that were held up ({late})"
        yield Damage(f"{where}/epochs.jsonl", found, "they do not count", is_harmless=True)
    if trial.session > study.session:
        found = f"is of session {trial.session}, but manifest.json knows {study.session} sessions"
        yield Damage(f"{where}/trial.json", found, "restore manifest.json from a backup")
    best, kept = trial.best_epoch, trial.epochs[-KEPT_STATES:]
    if best and not folder.is_whole(best.weights, best.weights_sha256):
        yield _missing(trial, best.weights, f"the best weights, epoch {best.epoch}'s,")
    if trial.state == "running":
        return
    for entry in kept:
        if not folder.is_whole(entry.state, entry.sha256):
            yield _missing(trial, entry.state, f"the training state after epoch {entry.epoch},")
    named = {entry.state for entry in kept} | ({best.weights} if best else set())
    spare = [path for path, _ in folder.checkpoints() if path.name not in named]
    for path in sorted([*spare, *folder.leftovers()]):
        remedy = "nothing reads it"
        if trial.outcome is None:
            remedy += ", and `samtune resume` removes it"
        yield Damage(f"{where}/{path.name}", LEFT, remedy, is_harmless=True)


def _missing(trial: Trial, name: str, what: str) -> Damage:
    is_gone = not trial.folder.file(name).is_file()
    remedy = "restore it from a backup"
    if trial.outcome is None:
        remedy += ", or `samtune resume` goes on from the last whole training state"
    found = f"({what[:-1]}) is {'gone' if is_gone else 'not what was written'}"
    return Damage(f"trials/{trial.key}/{name}", found, remedy)


def _left_behind(study: Study) -> Iterator[Damage]:
    if study.is_running:
        return
    root = study.folder.root
    if driver := study.folder.driver:
        found = f"names {driver} as the driver, which runs no more"
        yield Damage("manifest.json", found, "`samtune resume` takes over", is_harmless=True)
    for path in sorted([*root.glob(f"{TEMPORARY}*"), *root.glob(".tune")]):
        yield Damage(path.name, LEFT, "nothing reads it", is_harmless=True)
