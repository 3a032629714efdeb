"""One class an image, told by the longest capsule, and the image redrawn from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from samtune.models.capsnet import lengths
from samtune.tasks.base import Mode
from samtune.tasks.classification import Hits, accuracies
from samtune.tasks.losses import MarginLoss, ReconstructionLoss

Outputs = tuple[Tensor, Tensor | None]
"""Capsules (B, K, D), and the redrawn images (B, C, H, W) where they are wanted."""


class Capsule:
    """Margin loss and reconstruction; see `samtune.models.capsnet` for the settings.

    Args:
        mean, std: what the dataset normalised its pixels by; they are redrawn in [0, 1].
    """

    def __init__(
        self,
        num_classes: int | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        *,
        margin_squared: bool = True,
        reconstruction_weight: float = 0.0005,
        reconstruction_reduction: Literal["sum", "mean"] = "sum",
    ) -> None:
        self.metrics: Mapping[str, Mode] = {
            "loss": "min",
            **accuracies(num_classes),
            "reconstruction_error": "min",
        }
        self._mean = torch.tensor(mean)[:, None, None]
        self._std = torch.tensor(std)[:, None, None]
        self._margin = MarginLoss(squared=margin_squared)
        self._reconstruction = ReconstructionLoss(reconstruction_reduction)
        self._weight = reconstruction_weight

    def forward(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Outputs:
        """Capsules, and the images that the model draws from those of the true classes."""
        capsules, drawn = model(inputs)
        if callable(drawn):
            drawn = drawn(targets) if self._weight else None
        return capsules, drawn

    def loss(self, outputs: Outputs, inputs: Tensor, targets: Tensor) -> Tensor:
        """The margin loss, and the squared error of the redrawn images by its weight."""
        capsules, drawn = outputs
        loss: Tensor = self._margin(capsules, targets)
        if self._weight:
            loss = loss + self._weight * self._reconstruction(drawn, self.pixels(inputs))
        return loss

    def predict(self, outputs: Outputs) -> Tensor:
        """The class (B,) of each image's longest capsule."""
        return lengths(outputs[0]).argmax(1)

    def pixels(self, inputs: Tensor) -> Tensor:
        """Normalised images as they were before, in [0, 1]."""
        if self._mean.device != inputs.device:  # once: a copy to a GPU waits for it
            self._mean, self._std = self._mean.to(inputs.device), self._std.to(inputs.device)
        return inputs * self._std + self._mean

    def meter(self) -> CapsuleMeter:
        """An empty meter."""
        return CapsuleMeter(self)

    def scores(self, outputs: Outputs) -> Tensor:
        """The lengths (B, K) of the capsules."""
        return lengths(outputs[0])

    def probabilities(self, scores: Tensor) -> Tensor:
        """The lengths as they are: each says how surely its class is there, whatever the others."""
        return scores

    def score_meter(self) -> LengthMeter:
        """An empty meter of accuracies: loss and reconstruction need the capsules themselves."""
        return LengthMeter()


class LengthMeter:
    """The share of right answers, of the lengths alone."""

    def __init__(self) -> None:
        self._right = Hits()

    def update(self, outputs: Tensor, inputs: Tensor, targets: Tensor) -> None:
        """Takes lengths (B, K) and classes (B,)."""
        self._right.update(outputs, targets)

    def compute(self) -> dict[str, float]:
        """Means over all images."""
        return self._right.compute()


class CapsuleMeter:
    """The task's own loss, the share of right answers, the mean squared error of a pixel."""

    def __init__(self, task: Capsule) -> None:
        self._task = task
        self._right = Hits()
        self._loss: Tensor | float = 0.0
        self._error: Tensor | float = 0.0

    def update(self, outputs: tuple[Tensor, Tensor], inputs: Tensor, targets: Tensor) -> None:
        """Takes what the model returns while evaluating: capsules and redrawn images."""
        capsules, drawn = outputs
        count = len(targets)
        self._right.update(lengths(capsules), targets)
        self._loss = self._loss + count * self._task.loss(outputs, inputs, targets)
        error = (drawn - self._task.pixels(inputs)).square().mean()
        self._error = self._error + count * error

    def compute(self) -> dict[str, float]:
        """Means over all images."""
        count = self._right.count
        return {
            "loss": float(self._loss) / count,
            **self._right.compute(),
            "reconstruction_error": float(self._error) / count,
        }
