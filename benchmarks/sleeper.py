"""A model whose epoch takes 50 ms of sleep and nothing else, for `overhead.py`."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from samtune import register_dataset, register_model
from samtune.data import DataSplits, Images

EPOCH_S = 0.05


@register_model("sleeper")
class Sleeper(nn.Module):
    """One linear layer that sleeps before each training step."""

    def __init__(self, *, num_classes: int, scale: float = 1.0) -> None:
        super().__init__()
        self.linear = nn.Linear(16, num_classes)
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        if self.training and images.device.type != "meta":
            time.sleep(EPOCH_S)
        return self.linear(self.scale * images.flatten(1))


@register_dataset("sixteen")
def sixteen() -> DataSplits:
    """Sixteen grey 4x4 images of two classes: one step an epoch."""
    images = torch.randint(
        0, 256, (16, 4, 4, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    split = Images(images, torch.arange(16) % 2)
    return DataSplits(
        task="classification",
        num_classes=2,
        train=split,
        val=split,
        open_test=lambda: split,
        mean=(0.5,),
        std=(0.3,),
    )
