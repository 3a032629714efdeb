"""What the benchmarks train: random images the size of CIFAR's, and a wide ResNet."""

from __future__ import annotations

from typing import Any

import torch

from samtune.config.trial import TrialConfig
from samtune.data import DataSplits, Images
from samtune.data.augmentation import Augmentation

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CROP_PADDING, CUTOUT = 4, 16


def random_splits(train: int, val: int = 64) -> DataSplits:
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> Images:
        return Images(
            torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator),
            torch.randint(0, 10, (count,), generator=generator),
        )

    return DataSplits(
        task="classification",
        num_classes=10,
        train=images(train),
        val=images(val),
        open_test=lambda: images(val),
        mean=MEAN,
        std=STD,
        augmentation=Augmentation(crop_padding=CROP_PADDING, flip=True, cutout=CUTOUT),
    )


def trial(
    sam: dict[str, Any] | None = None, *, depth: int = 16, width: int = 2, **training: Any
) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "model": {"name": "wide_resnet", "depth": depth, "width_factor": width},
            "dataset": {"name": "digits"},  # a name is needed; the images are random ones
            "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
            "sam": sam or {},
            "training": {"epochs": 8, "batch_size": 64, **training},
        }
    )
