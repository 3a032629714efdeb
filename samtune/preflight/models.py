"""Every model that a study can come to: built, measured, and a few of them tried."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from samtune.config.checked_trial import trial_with
from samtune.config.objectives import COSTS
from samtune.config.schema import StudyConfig
from samtune.config.trial import TrialConfig
from samtune.data import DataSplits
from samtune.errors import SamtuneError, StudyFileError, raised
from samtune.models import fetch_pretrained
from samtune.registry import MODELS
from samtune.tasks import study_metrics
from samtune.training.batch_norm import check_batch_norms
from samtune.training.loop import climbing_images, sam_step
from samtune.training.selfcheck import PASSES, Finding, check_sam
from samtune.training.state import new_model, set_up, trial_task

MOST_COMBINATIONS = 512
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


def every_model(config: StudyConfig, data: DataSplits) -> list[Corner]:
    """Builds and runs, on torch's meta device, each model that the space allows."""
    paths = [path for path in config.search_space if path.startswith("model.")]
    corners = []
    problems: dict[str, None] = {}
    for values in itertools.islice(config.combinations(paths), MOST_COMBINATIONS):
        trial = trial_with(config, values)
        try:
            _check_metric(config, trial, data)
            corners.append(_measured(values, trial, data, config))
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


def _measured(
    values: dict[str, Any], trial: TrialConfig, data: DataSplits, config: StudyConfig
) -> Corner:
    trial_task(trial, data)
    count = min(2, _fewest_images(trial), len(data.train))
    with torch.device("meta"):
        model = new_model(trial, data)
        images = torch.empty(count, data.in_channels, *data.image_size)
        with FlopCounterMode(display=False) as counter:
            model(images)
    _check_processes(model, trial, config)
    parameters = sum(p.numel() for p in model.parameters())
    return Corner(values, parameters, counter.get_total_flops() // (2 * count))


def _check_processes(model: nn.Module, trial: TrialConfig, config: StudyConfig) -> None:
    """Raises a ValueError where a trial's GPUs cannot share a batch of this model's."""
    processes, training, sam = config.study.resources.whole_gpus, trial.training, trial.sam
    if processes <= 1:
        return
    if training.micro_batch_size or sam.micro_ascent:
        check_batch_norms(model, processes)
    if training.micro_batch_size:
        return
    always_climbs = sam.rho > 0 and sam.every == 1 and sam.start_fraction == 0
    if not sam.micro_ascent or not always_climbs or config.study.has_baseline:
        share = 1.0 if sam.micro_ascent else sam.ascent_fraction
        check_batch_norms(model, processes, climbing_images(share, training.batch_size))


def _fewest_images(trial: TrialConfig) -> int:
    """How many images the smallest forward pass of a training step sees."""
    fewest = [trial.training.batch_size]
    for size in (trial.sam.micro_ascent, trial.training.micro_batch_size):
        if size:
            fewest = [part for whole in fewest for part in (min(size, whole), whole % size or size)]
    return min(fewest)


def _reason(error: Exception) -> str:
    refusals = (SamtuneError, ValueError, RuntimeError)
    return _in_words(error) if isinstance(error, refusals) else raised(error)


def _in_words(error: Exception) -> str:
    reason = " ".join(str(error).split())[:300]
    if "more than 1 value per channel" in reason:
        return (
            "batch norm needs more than one value a channel; raise training.batch_size, or the "
            "parts that training.micro_batch_size or sam.micro_ascent make of it"
        )
    return reason


def _check_metric(config: StudyConfig, trial: TrialConfig, data: DataSplits) -> None:
    task = MODELS[trial.model.name].task or data.task
    known = study_metrics(task, data.num_classes)
    for metric in dict.fromkeys([config.study.metric, *config.study.metrics]):
        if metric not in known and metric not in COSTS:
            raise ValueError(
                f"{trial.model.name} has no metric {metric} with {data.num_classes} classes; "
                f"there are: {', '.join(known)}"
            )


def time_step(corner: Corner, config: StudyConfig, data: DataSplits) -> Corner:
    """The same with `step_s`, unless a step would take long."""
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


def self_checks(
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
