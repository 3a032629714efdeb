"""Brings a study that lies in a bucket into this process's copy; elsewhere it does nothing.

The files that say what is so have names that are known beforehand, and are asked for by them: a
listing may be behind, and only says what else to look at. Training states, weights and logs come
when somebody reads them (`working_copy.at_hand`).
"""

from __future__ import annotations

import re
from pathlib import Path

from samtune import working_copy
from samtune.study.trial_folder import (
    LET_GO_FILE,
    TRIAL_FILES,
    TRIAL_PATTERN,
    trial_key,
    trial_number,
)

STUDY_FILES = ("manifest.json", "study.yaml")  # either is a sign of a study, damaged or not
OWN_FILES = (*STUDY_FILES, "settings.json", "mlflow.json", "tracking.json")
_OF_A_TRIAL = "|".join((*TRIAL_FILES, LET_GO_FILE))
_SAYS = re.compile(rf"[\w.-]+\.(?:json|yaml)|trials/{TRIAL_PATTERN}/(?:{_OF_A_TRIAL})")


def fetch_own(root: Path) -> None:
    """What a study says of itself."""
    if working_copy.is_copy(root):
        working_copy.refresh(root / name for name in OWN_FILES)
        _make_folders(root)


def fetch_study(root: Path) -> None:
    """All that a study and its trials say."""
    if not working_copy.is_copy(root):
        return
    working_copy.fetch(root, lambda name: _SAYS.fullmatch(name) is not None, OWN_FILES[:3])
    _make_folders(root)
    trials = root / "trials"
    if trials.is_dir():
        _fetch_unlisted(trials)


def _fetch_unlisted(trials: Path) -> None:
    """What a listing that is behind may lack: the newest trials, and the newest of each trial."""
    looked: set[int] = set()
    while True:
        known = {
            trial_number(p.name) for p in trials.iterdir() if re.fullmatch(TRIAL_PATTERN, p.name)
        }
        unknown = set(range(max(known, default=0) + 2)) - known - looked
        if not unknown:
            break
        working_copy.refresh(trials / trial_key(number) / TRIAL_FILES[0] for number in unknown)
        looked |= unknown
    due = [trials / trial_key(number) / name for number in known for name in TRIAL_FILES]
    working_copy.refresh(path for path in due if not path.exists())


def study_names(storage: Path) -> list[str]:
    """The names in a storage that is in a bucket; whether each is a study shows in its copy."""
    names = working_copy.subfolders(storage)
    working_copy.refresh(storage / name / file for name in names for file in STUDY_FILES)
    return [name for name in names if any((storage / name / f).exists() for f in STUDY_FILES)]


def _make_folders(root: Path) -> None:
    if any((root / name).exists() for name in STUDY_FILES):
        (root / "trials").mkdir(exist_ok=True)  # a bucket has no empty folders
