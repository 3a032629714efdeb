"""What a study will do and cost, found out before its first trial."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from samtune.config.baseline import baseline_study
from samtune.config.schema import KEPT_STATES, StudyConfig
from samtune.config.trial import Named
from samtune.data import DataSplits, open_dataset
from samtune.errors import SamtuneError
from samtune.preflight.models import Corner, every_model, self_checks, time_step
from samtune.training.precision import Precision, resolve
from samtune.training.schedule import steps_per_epoch
from samtune.training.selfcheck import Finding

PROBE_BYTES = 4096


@dataclass(frozen=True)
class Preview:
    """What a study will do.

    Attributes:
        precision: what trials compute in on this machine, `auto` resolved.
        corners: the smallest and the largest model.
        rungs: the epochs at which weak trials stop, each with the number of trials to reach it.
        epochs: what all trials together will train, about, those of a tuned baseline too.
        gradients: the same in gradients of the whole training split, of which SAM costs more.
        disk_bytes: what is kept of the trials that have ended; of failed ones it is more.
        disk_bytes_at_work: the states and weights of each trial at work.
        self_checks: by model, whether SAM keeps its promises; a sentence where that was not tried.
        missing: why the data set is not there; then nothing is said of models, time and disk.
        fetchable: whether running the study fetches it.
    """

    config: StudyConfig
    data: DataSplits | None
    precision: Precision
    corners: list[Corner]
    rungs: list[tuple[int, int]]
    epochs: int
    gradients: float
    disk_bytes: int
    disk_free_bytes: int
    self_checks: dict[str, list[Finding] | str]
    disk_bytes_at_work: int = 0
    missing: str = ""
    fetchable: bool = False

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch; 0 where the data set is not there."""
        if self.data is None:
            return 0
        return steps_per_epoch(self.config.trial.training, len(self.data.train))

    @property
    def gradient_evaluations(self) -> float:
        """Of one image each, by all trials together, about; 0 where the data set is not there."""
        return self.gradients * self.steps_per_epoch * self.config.trial.training.batch_size


def preview(
    config: StudyConfig,
    storage: Path,
    *,
    timed: bool = False,
    self_check: bool = False,
    fetch: bool = True,
) -> Preview:
    """Checks that every trial of a study can run, and says what it will cost.

    Args:
        fetch: whether the data set may be downloaded. If not, a study whose data set is not there
            is previewed without it, and `Preview.missing` says so.
        timed: also measure a training step of the smallest and the largest model.
        self_check: also try, on the smallest of each model, that SAM does what it promises.

    Raises:
        StudyFileError: the search space allows what cannot be built.
        SamtuneError: the data set, the storage or a model's pretrained weights are not there.
    """
    free = free_space(storage)
    rungs = expected_rungs(config)
    studies = [config]
    if config.study.baseline == "tuned":
        studies.append(baseline_study(config, "", config.wanted_trials))
    epochs = sum(_expected_epochs(study) for study in studies)
    gradients = sum(_expected_epochs(study) * gradients_per_step(study) for study in studies)
    fetchable = config.trial.dataset.params.get("download") is True
    try:
        data = _data(config.trial.dataset, fetch=fetch)
    except SamtuneError as error:
        if fetch:
            raise
        missing = str(error)
        precision = _precision(config)
        words = (missing, fetchable)
        counts = rungs, epochs, gradients, 0, free
        return Preview(config, None, precision, [], *counts, {}, 0, *words)
    corners = sorted(every_model(config, data), key=lambda corner: corner.parameters)
    ends = corners if len(corners) == 1 else [corners[0], corners[-1]]
    if timed:
        ends = [time_step(corner, config, data) for corner in ends]
    sizes = [_disk(study, corners[-1].parameters) for study in studies]
    disk, at_work = sum(kept for kept, _ in sizes), sizes[0][1]
    checks = self_checks(corners, config, data) if self_check else {}
    counts = rungs, epochs, gradients, disk, free
    return Preview(config, data, _precision(config), ends, *counts, checks, at_work)


def _disk(config: StudyConfig, parameters: int) -> tuple[int, int]:
    """The bytes of what the study keeps, and those of each trial at work."""
    kept = config.wanted_trials
    if config.keep_weights is not None:
        kept = min(kept, config.keep_weights)
    state = 3 if _may_average(config) else 2  # weights and momentum, and an average
    # The last epoch's weights are in its state alone, unless they are the best.
    copies = 1 if config.study.select == "best" else 1 + state
    return (
        4 * parameters * copies * (kept + config.study.has_baseline),
        4 * parameters * (1 + KEPT_STATES * state),
    )


def _data(dataset: Named, *, fetch: bool) -> DataSplits:
    """The data set; without `fetch`, as it is on the disk now.

    Raises:
        SamtuneError: it is not there, or its factory refuses what it was given.
    """
    params = dataset.params
    if not fetch and "download" in params:
        params["download"] = False
    return open_dataset(dataset.name, params)


def _may_average(config: StudyConfig) -> bool:
    searched = {"training.ema_decay", "training.average_from"} & config.search_space.keys()
    return config.trial.training.averages or bool(searched)


def expected_rungs(config: StudyConfig) -> list[tuple[int, int]]:
    """ASHA's rungs: epoch, and how many of the trials reach it if a fixed share always goes on."""
    scheduler, epochs = config.study.scheduler, config.trial.training.epochs
    if scheduler.name != "asha":
        return []
    return [
        (epoch, max(1, round(config.wanted_trials / scheduler.reduction_factor**i)))
        for i, epoch in enumerate([*scheduler.rung_epochs(epochs), epochs])
    ]


def free_space(storage: Path) -> int:
    """Bytes free where the study will be.

    Raises:
        SamtuneError: the folder cannot be written.
    """
    existing = storage.absolute()
    try:
        while not (existing.exists() or existing.is_symlink()):
            existing = existing.parent
        # Only writing tells: root may write anywhere by its rights, and a full disk takes a name.
        with tempfile.TemporaryFile(dir=existing, buffering=0) as probe:
            probe.write(bytes(PROBE_BYTES))
    except OSError as error:
        raise SamtuneError(
            f"storage {storage} cannot be written: {existing}: {error.strerror or error}"
        ) from error
    return shutil.disk_usage(existing).free


def _precision(config: StudyConfig) -> Precision:
    """What a trial would compute in, if it ran on this machine."""
    on_gpu = torch.cuda.is_available() and config.study.resources.gpus != 0
    return resolve(config.trial.training.precision, torch.device("cuda" if on_gpu else "cpu"))


def gradients_per_step(config: StudyConfig) -> float:
    """What a step of a study's trials costs, in gradients of a batch, as the base trial says."""
    sam = config.trial.sam
    if "sam.rho" in config.search_space:
        sam = sam.model_copy(update={"rho": 1.0})  # which it is does not matter, but that it is
    return sam.gradients_per_step(config.trial.training.epochs)


def _expected_epochs(config: StudyConfig) -> int:
    epochs = config.trial.training.epochs
    rungs = expected_rungs(config)
    if not rungs:
        return epochs * (config.wanted_trials + config.study.has_baseline)
    total = epochs * config.study.has_baseline
    before = 0
    for epoch, trials in rungs:
        total += trials * (epoch - before)
        before = epoch
    return total
