"""Exported files of networks that belong to no study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from samtune.export.about import About, ImageInput
from samtune.export.formats import FORMATS
from samtune.export.preprocessing import Preprocessed
from samtune.tasks import build_task

MEAN, STD = 0.3, 0.4


def said(
    recipe: Any,
    *,
    channels: int = 1,
    size: Sequence[int] = (8, 8),
    task: str = "classification",
    classes: Sequence[str] = (),
    config: dict[str, Any] | None = None,
) -> About:
    return About(
        study="study",
        trial="t0001",
        epoch=1,
        metric="val_accuracy",
        metrics={"val_accuracy": 0.5},
        model=recipe,
        task=task,
        input=ImageInput(channels, size[0], size[1], [MEAN] * channels, [STD] * channels),
        classes=[*classes],
        config=config or {"dataset": {"name": "digits"}},
    )


def preprocessed(network: nn.Module, about: About, num_classes: int = 3) -> Preprocessed:
    task = build_task(about.task, num_classes=num_classes)
    return Preprocessed(network, task, about.input.mean, about.input.std).eval()


def write(path: Path, network: nn.Module, about: About, format: str, num_classes: int = 3) -> Path:
    example = torch.rand(2, about.input.channels, *about.input.size)
    FORMATS[format].write(path, preprocessed(network, about, num_classes), about, example)
    return path
