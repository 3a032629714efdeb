"""The sharpness of trials of a study, measured and kept in its folder."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import torch

from samtune.config.trial import TrialConfig
from samtune.data import DataSplits, open_dataset
from samtune.files import sync_folder, write_json
from samtune.sharpness.curvature import EIGENVALUES, PROBES, NoCurvatureError, curvature
from samtune.sharpness.landscape import LINE_POINTS, along_line, directions, on_plane, positions
from samtune.sharpness.loss import FixedLoss
from samtune.sharpness.result import (
    ADAPTIVE,
    FILE,
    Landscape,
    Question,
    Sharpness,
    TrialSharpness,
    own_rho,
)
from samtune.sharpness.rise import STEPS, loss_rise
from samtune.study import Study, Trial
from samtune.study.manifest import installed_versions
from samtune.study.weights import TrainedModel, load_trained
from samtune.tasks import CAPSULE_SETTINGS
from samtune.training.state import trial_task

MOST_IMAGES = 480
MOST_VALUES = 2**26  # pixels by channels of all images together: a quarter of a GiB
PRODUCTS = 35 + PROBES  # of a Hessian with a vector: what Lanczos takes, about, and the trace


Watch = Callable[[str, int], Callable[[], None]]
"""Begins a stretch of work of about so many steps; returns what is called after each."""


def measure(study: Study, question: Question, watch: Watch = lambda *_: _nothing) -> Sharpness:
    """Measures what is asked, and keeps it in the study's folder as `sharpness.json`.

    Raises:
        SamtuneError: a trial's weights or its data set cannot be read.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trials = [study.trial(weights.trial) for weights in question.weights]
    found = []
    data, read, task = None, "", ""
    for trial in trials:
        dataset = json.dumps(trial.config.dataset.model_dump(mode="json"), sort_keys=True)
        if data is None or dataset != read:
            config = trial.config.dataset
            data, read = open_dataset(config.name, config.params), dataset
        trained = load_trained(trial, 1, data)
        chosen, batch_size = subset(data, question)
        task = task or trained.task
        with _same_every_time():
            measured = _measured(trial, trained, chosen, batch_size, question, device, watch)
        differs_in = _differences(trials[0].config, trial.config)
        found.append(replace(measured, differs_in=differs_in))
    answer = Sharpness(
        question,
        trials[0].config.dataset.name,
        task,
        len(chosen.val),
        batch_size,
        STEPS,
        positions(LINE_POINTS) if question.grid else [],
        positions(question.grid) if question.grid else [],
        torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        torch.get_num_threads(),
        installed_versions(),
        found,
    )
    write_json(study.folder.root / FILE, asdict(answer))
    sync_folder(study.folder.root)
    return answer


def subset(data: DataSplits, question: Question) -> tuple[DataSplits, int]:
    """The data set with the fixed training images as its validation split, and the batch size.

    They are drawn by the seed alone, and fill their batches, so that each weighs the same; they
    are never augmented, as validation images never are.
    """
    total = len(data.train)
    values = data.in_channels * math.prod(data.image_size)
    most = question.images or min(MOST_IMAGES, max(1, MOST_VALUES // values))
    count = min(most, total)
    batch_size = min(question.batch_size, count)
    random = torch.Generator().manual_seed(question.seed)
    index = torch.randperm(total, generator=random)[: count // batch_size * batch_size]
    return replace(data, val=data.train[index]), batch_size


def _measured(
    trial: Trial,
    trained: TrainedModel,
    chosen: DataSplits,
    batch_size: int,
    question: Question,
    device: torch.device,
    watch: Watch,
) -> TrialSharpness:
    key, config = trial.key, trained.config
    is_last = config.training.channels_last
    layout = torch.channels_last if is_last else torch.contiguous_format
    model = trained.model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    batches = [
        (images if is_last else images.contiguous(), targets)
        for images, targets in chosen.val_batches(batch_size, device).in_order()
    ]
    loss = FixedLoss(model, trial_task(config, chosen), batches)
    at = _radii(config, question)
    tick = watch(f"{key}: loss rise within rho", len(at) * len(batches))
    rises = [loss_rise(loss, rho, adaptive=adaptive, tick=tick) for rho, adaptive in at]
    bent, no_curvature = None, "curvlinops is not installed"
    if question.curvature:
        no_curvature = ""
        tick = watch(f"{key}: Hessian", PRODUCTS)
        try:
            bent = curvature(loss, eigenvalues=EIGENVALUES, seed=question.seed, tick=tick)
        except NoCurvatureError as error:
            no_curvature = str(error)
    return TrialSharpness(
        trial=key,
        epoch=trained.epoch,
        is_baseline=trial.is_baseline,
        rho=config.sam.rho,
        variant=config.sam.variant,
        parameters=sum(p.numel() for p in loss.params),
        loss=loss.value(),
        rises=rises,
        curvature=bent,
        no_curvature=no_curvature,
        landscape=_landscape(loss, question, key, watch) if question.grid else None,
    )


def _radii(config: TrialConfig, question: Question) -> list[tuple[float, bool]]:
    """Where the rise is measured: what all trials share, and the trial's own rho."""
    own, is_adaptive = own_rho(config.sam), config.sam.variant in ADAPTIVE
    plain, adaptive = set(question.rhos), set(question.adaptive_rhos)
    if own:
        (adaptive if is_adaptive else plain).add(own)
    return [(rho, False) for rho in sorted(plain)] + [(rho, True) for rho in sorted(adaptive)]


def _landscape(loss: FixedLoss, question: Question, key: str, watch: Watch) -> Landscape:
    at = positions(question.grid)
    tick = watch(f"{key}: landscape", LINE_POINTS + len(at) ** 2)
    both = directions(loss, 2, question.seed)
    line = along_line(loss, both[0], positions(LINE_POINTS), tick)
    return Landscape(line, on_plane(loss, both, at, at, tick))


def _differences(one: TrialConfig, other: TrialConfig) -> list[str]:
    """The settings that make two trials' losses different functions of their outputs or images."""

    def settings(config: TrialConfig) -> dict[str, Any]:
        dataset = config.dataset.model_dump(mode="json")
        capsule = {k: v for k, v in config.model.params.items() if k in CAPSULE_SETTINGS}
        return {
            **{f"dataset.{name}": value for name, value in dataset.items()},
            **{f"model.{name}": value for name, value in capsule.items()},
            "training.label_smoothing": config.training.label_smoothing,
        }

    ours, theirs = settings(one), settings(other)
    return [p for p in {**ours, **theirs} if ours.get(p) != theirs.get(p)]


@contextmanager
def _same_every_time() -> Iterator[None]:
    """On a GPU, too, in full float32."""
    with torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
        yield


def _nothing() -> None:
    pass
