"""What can be known before any trial starts: that every trial can run, and what it will cost.

A range that allows a depth no architecture has, a data set that is not there, a folder that cannot
be written: each is found in seconds here and not in trial 37.
"""

from __future__ import annotations

import itertools
import math
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from samtune.config.left_behind import left_behind
from samtune.config.schema import Named, StudyConfig, TrialConfig
from samtune.config.space import FloatRange
from samtune.config.trials import trial_with
from samtune.data import DataSplits, open_dataset
from samtune.errors import SamtuneError, StudyFileError, raised
from samtune.models import fetch_pretrained
from samtune.registry import MODELS
from samtune.tasks import study_metrics
from samtune.training.loop import sam_step
from samtune.training.precision import Precision, resolve
from samtune.training.schedule import steps_per_epoch
from samtune.training.selfcheck import PASSES, Finding, check_sam
from samtune.training.state import new_model, set_up, trial_task

MOST_COMBINATIONS = 512
PROBE_BYTES = 4096
# Where the best rho of each variant is found, in papers and in the bundled studies, with room.
USUAL_RHO = {
    "sam": (0.01, 1.0),
    "fsam": (0.01, 1.0),
    "sam_on": (0.05, 15.0),
    "asam": (0.2, 10.0),
    "asam_eta": (0.1, 5.0),
    "msam": (0.2, 10.0),
}
TIMED_BELOW_FLOPS = 2e11  # a step of more than about a second on a CPU core is not worth timing
SELF_CHECKED_BELOW_FLOPS = 1e12  # some ten seconds on a CPU core
SELF_CHECK_IMAGES = 2, 8  # at least, so that batch norm has two values a channel, and at most


@dataclass(frozen=True)
class Corner:
    """One combination of model settings.

    Attributes:
        values: the searched model settings, by path.
        parameters: how many weights.
        macs: multiply-adds of one image, forward.
        step_s: seconds of one SAM step on one CPU thread here; None where it was not timed.
    """

    values: dict[str, Any]
    parameters: int
    macs: int
    step_s: float | None = None


@dataclass(frozen=True)
class Preview:
    """What a study will do.

    Attributes:
        precision: what trials compute in on this machine, `auto` resolved.
        corners: the smallest and the largest model.
        rungs: the epochs at which weak trials stop, each with the number of trials to reach it.
        epochs: what all trials together will train, about.
        disk_bytes: states and weights at the end, at most.
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
    disk_bytes: int
    disk_free_bytes: int
    self_checks: dict[str, list[Finding] | str]
    missing: str = ""
    fetchable: bool = False

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch; 0 where the data set is not there."""
        if self.data is None:
            return 0
        return steps_per_epoch(self.config.trial.training, len(self.data.train))


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
    epochs = _expected_epochs(config, rungs)
    fetchable = config.trial.dataset.params.get("download") is True
    try:
        data = _data(config.trial.dataset, fetch=fetch)
    except SamtuneError as error:
        if fetch:
            raise
        missing = str(error)
        words = (missing, fetchable)
        return Preview(config, None, _precision(config), [], rungs, epochs, 0, free, {}, *words)
    corners = sorted(_every_model(config, data), key=lambda corner: corner.parameters)
    ends = corners if len(corners) == 1 else [corners[0], corners[-1]]
    if timed:
        ends = [_timed(corner, config, data) for corner in ends]
    trials = config.wanted_trials + config.study.baseline
    # Weights and momentum (and an average) in each of two states, and the best weights once more.
    copies = 7 if _may_average(config) else 5
    disk = trials * copies * 4 * corners[-1].parameters
    checks = _self_checks(corners, config, data) if self_check else {}
    return Preview(config, data, _precision(config), ends, rungs, epochs, disk, free, checks)


def _data(dataset: Named, *, fetch: bool) -> DataSplits:
    """The data set; without `fetch`, as it is on the disk now.

    Raises:
        SamtuneError: it is not there, or its factory refuses what it was given.
    """
    params = dataset.params
    if not fetch and "download" in params:
        params["download"] = False
    return open_dataset(dataset.name, params)


def warnings_of(config: StudyConfig) -> list[str]:
    """What is allowed, and hardly meant."""
    return [*_rho_on_another_scale(config), *left_behind(config)]


def _rho_on_another_scale(config: StudyConfig) -> list[str]:
    """A sentence for each variant whose rho is searched on another variant's scale.

    That is so where the middle of the range, on the log scale, is not where this variant's best
    values are found.
    """
    if "sam.rho" not in config.search_space:
        return []
    sentences = []
    for variant in _variants(config):
        found = config.active("sam.rho", {"sam.variant": variant})
        if found is None or not isinstance(found[1], FloatRange):
            continue
        low, high = found[1].bounds
        usual_low, usual_high = USUAL_RHO[variant]
        # A range from 0 has no middle on the log scale: take a thousandth of its end as its start.
        middle = math.sqrt(max(low, high / 1000) * high)
        if not usual_low <= middle <= usual_high:
            sentences.append(
                f"sam.rho from {low:g} to {high:g} is unusual for {variant}, whose best values "
                f"are mostly between {usual_low:g} and {usual_high:g}; give each variant its own "
                "range with 'when'."
            )
    return sentences


def _may_average(config: StudyConfig) -> bool:
    searched = {"training.ema_decay", "training.average_from"} & config.search_space.keys()
    return config.trial.training.averages or bool(searched)


def _variants(config: StudyConfig) -> list[str]:
    """Every `sam.variant` that a trial can have."""
    searched = config.search_space.get("sam.variant")
    if not searched:
        return [config.trial.sam.variant]
    return [str(value) for distribution in searched for value in distribution.examples]


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


def _every_model(config: StudyConfig, data: DataSplits) -> list[Corner]:
    """Builds and runs, on torch's meta device, each model that the space allows."""
    paths = [path for path in config.search_space if path.startswith("model.")]
    corners = []
    problems: dict[str, None] = {}
    for values in itertools.islice(config.combinations(paths), MOST_COMBINATIONS):
        trial = trial_with(config, values)
        try:
            _check_metric(config, trial, data)
            corners.append(_measured(values, trial, data))
        except Exception as error:  # noqa: BLE001 - foreign code: anything can come
            allowed = ", ".join(f"{path} = {value!r}" for path, value in values.items())
            size = "x".join(str(s) for s in data.image_size)
            problems[
                f"search_space allows {allowed or 'the base trial'}, which does not work on "
                f"{size} images with {data.in_channels} channels: {_reason(error)}"
            ] = None
    if problems:
        raise StudyFileError(f"study {config.name}", list(problems))
    _fetch_pretrained([trial_with(config, corner.values) for corner in corners])
    return corners


def _fetch_pretrained(trials: Sequence[TrialConfig]) -> None:
    """Each model's pretrained weights once: what cannot be had is not left for trials to find."""
    named = {t.model.name: t.model for t in trials if t.model.params.get("pretrained")}
    for model in named.values():
        fetch_pretrained(model.name, **model.params)


def _measured(values: dict[str, Any], trial: TrialConfig, data: DataSplits) -> Corner:
    trial_task(trial, data)
    count = min(2, trial.training.batch_size, len(data.train))
    with torch.device("meta"):
        model = new_model(trial, data)
        images = torch.empty(count, data.in_channels, *data.image_size)
        with FlopCounterMode(display=False) as counter:
            model(images)
    parameters = sum(p.numel() for p in model.parameters())
    return Corner(values, parameters, counter.get_total_flops() // (2 * count))


def _reason(error: Exception) -> str:
    refusals = (SamtuneError, ValueError, RuntimeError)
    return _in_words(error) if isinstance(error, refusals) else raised(error)


def _in_words(error: Exception) -> str:
    reason = " ".join(str(error).split())[:300]
    if "more than 1 value per channel" in reason:
        return "batch norm needs more than one value a channel; raise training.batch_size"
    return reason


def _check_metric(config: StudyConfig, trial: TrialConfig, data: DataSplits) -> None:
    task = MODELS[trial.model.name].task or data.task
    if config.study.metric not in (known := study_metrics(task, data.num_classes)):
        raise ValueError(
            f"{trial.model.name} has no metric {config.study.metric} with {data.num_classes} "
            f"classes; there are: {', '.join(known)}"
        )


def _timed(corner: Corner, config: StudyConfig, data: DataSplits) -> Corner:
    trial = trial_with(config, corner.values)
    too_large = 12 * corner.macs * trial.training.batch_size > TIMED_BELOW_FLOPS
    if too_large or trial.training.precision == "fp16":  # which CPUs only emulate
        return corner
    threads = torch.get_num_threads()
    # The study may run where there are more CPUs than here.
    torch.set_num_threads(min(config.study.resources.cpus, os.cpu_count() or 1))
    try:
        cpu = torch.device("cpu")
        state = set_up(trial, data, cpu)
        task = trial_task(trial, data)
        batches = data.train_batches(trial.training.batch_size, cpu)
        inputs, targets = next(iter(batches.shuffled(0)))
        try:
            sam_step(state, task, inputs, targets)
        except Exception as error:  # foreign code: anything can come
            raise SamtuneError(
                f"a training step of {trial.model.name} on {config.trial.dataset.name} fails: "
                f"{raised(error)}"
            ) from error
        started = time.perf_counter()
        sam_step(state, task, inputs, targets)
        step_s = time.perf_counter() - started
    finally:
        torch.set_num_threads(threads)
    return Corner(corner.values, corner.parameters, corner.macs, step_s)


def _self_checks(
    corners: Sequence[Corner], config: StudyConfig, data: DataSplits
) -> dict[str, list[Finding] | str]:
    """What was found on each model; `corners` has the smallest of each first."""
    found: dict[str, list[Finding] | str] = {}
    for corner in corners:
        trial = trial_with(config, corner.values)
        if trial.model.name not in found:
            found[trial.model.name] = _self_check(corner.macs, trial, data)
    return found


def _self_check(macs: int, trial: TrialConfig, data: DataSplits) -> list[Finding] | str:
    fewest, most = SELF_CHECK_IMAGES
    affordable = int(SELF_CHECKED_BELOW_FLOPS / (6 * PASSES * max(1, macs)))
    if affordable < fewest:
        return "it is too large for a quick try on a CPU"
    batches = data.train_batches(min(affordable, most), torch.device("cpu"))
    inputs, targets = next(iter(batches.shuffled(0)))
    try:
        return check_sam(lambda: new_model(trial, data), trial_task(trial, data), inputs, targets)
    except Exception as error:  # noqa: BLE001 - foreign code; it may train where this fails
        return f"it raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _expected_epochs(config: StudyConfig, rungs: list[tuple[int, int]]) -> int:
    epochs = config.trial.training.epochs
    if not rungs:
        return epochs * (config.wanted_trials + config.study.baseline)
    total = epochs * config.study.baseline
    before = 0
    for epoch, trials in rungs:
        total += trials * (epoch - before)
        before = epoch
    return total
