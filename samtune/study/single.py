"""A study of one trial: what `samtune train` runs, in this process and without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from samtune.config.checked_trial import record_of, trial_with
from samtune.config.schema import StudyConfig
from samtune.data import open_dataset
from samtune.errors import SamtuneError
from samtune.study.folder import StudyFolder, check_name
from samtune.study.keeping import spares
from samtune.study.requests import remove_requests, requested
from samtune.study.study import Study
from samtune.study.trial_folder import TrialFolder, trial_key
from samtune.study.trial_run import Progress, run_trial
from samtune.working_copy import address, current


def train_single(
    config: StudyConfig, name: str, storage: Path, plugin_folder: Path | None = None
) -> Iterator[Progress]:
    """Trains `config.trial` and yields its progress; called again, it goes on where it was.

    Raises:
        SamtuneError: a study of this name with another trial exists, or the data set cannot be
            loaded; a new run has written nothing then.
    """
    check_name(name)
    search = config.study.model_copy(update={"trials": 1, "baseline": False})
    single = config.model_copy(
        update={"name": name, "search_space": {}, "study": search, "confirm": None}
    )
    folder = None
    if current(storage / name / "manifest.json").exists():
        folder = StudyFolder.open(storage, name)
        # With what was added since filled in; hashes would not see a default that has changed.
        if trial_with(folder.config(), {}) != config.trial:
            raise SamtuneError(
                f"{address(storage / name)} holds a run with other settings; take another --name."
            )
    has_ended = folder is not None and _has_ended(folder.trial(trial_key(1)))
    dataset = config.trial.dataset
    data = None if has_ended else open_dataset(dataset.name, dataset.params)
    folder = folder or StudyFolder.create(storage, single, plugin_folder)
    torch.set_num_threads(config.study.resources.cpus)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # The numbers are the same with fewer: a study for larger machines can be tried on this one.
    processes = max(1, min(config.study.resources.whole_gpus, torch.cuda.device_count()))
    with folder.session() as session:
        trial = folder.trial(trial_key(1))
        if not _has_ended(trial):
            trial.hand_out(record_of(single, trial.key, {}), session)
        for progress in run_trial(trial, session, device=device, data=data, processes=processes):
            yield progress
            if progress.outcome is None and requested(folder, session):
                remove_requests(folder)
                raise KeyboardInterrupt  # `samtune stop` ends it as Ctrl-C does
        for spare in spares(Study(folder, folder.config())):
            spare.remove()


def _has_ended(trial: TrialFolder) -> bool:
    return trial.checked_outcome()[0] is not None
