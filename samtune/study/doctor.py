"""Is a study whole? Every file is looked at, and compared with what the journals say of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from samtune.config.schema import KEPT_STATES
from samtune.errors import SamtuneError, UnknownNameError
from samtune.files import TEMPORARY
from samtune.study.damage import Damage
from samtune.study.folder import StudyFolder
from samtune.study.journal import Journal
from samtune.study.keeping import spares
from samtune.study.study import Study, Trial
from samtune.words import size

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
    needed = _needed(trial)
    for name, (digest, what) in needed.items():
        if not folder.is_whole(name, digest):
            yield _missing(trial, name, what)
    if trial.outcome is not None or trial.state == "running":
        return
    spare = [path for path, _ in folder.checkpoints() if path.name not in needed]
    for path in sorted([*spare, *folder.leftovers()]):
        remedy = "nothing reads it, and `samtune resume` removes it"
        yield Damage(f"{where}/{path.name}", LEFT, remedy, is_harmless=True)


def _needed(trial: Trial) -> dict[str, tuple[str, str]]:
    """The files that a trial must have: each with its digest, and what it is.

    Whatever has ended needs its weights alone, unless they were not kept.
    """
    best, chosen = trial.best_epoch, trial.selected_epoch
    if best is None or chosen is None or trial.folder.let_go():
        return {}
    needed = {best.weights: (best.weights_sha256, f"the best weights, epoch {best.epoch}'s,")}
    states = [chosen] if trial.outcome and not chosen.weights else []
    if trial.may_go_on and trial.state != "running":
        states = trial.epochs[-KEPT_STATES:]
    for entry in states:
        what = f"the training state after epoch {entry.epoch},"
        needed[entry.state] = (entry.sha256, what)
    return needed


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
    if spare := list(spares(study)):
        found = f"hold {size(sum(s.size for s in spare))} that ended trials need not keep"
        remedy = f"`{study.folder.command('gc')}` removes it"
        yield Damage("trials", found, remedy, is_harmless=True)
