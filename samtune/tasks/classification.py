"""One class an image: cross entropy, accuracy, and top-5 accuracy where there are more classes."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from samtune.tasks.base import Mode
from samtune.tasks.losses import SmoothCrossEntropy

TOP = 5


class Classification:
    """One class an image.

    Args:
        num_classes: None where it is not known yet: then `metrics` lists all there may be.
        label_smoothing: training only, so that losses of different smoothing compare.
    """

    def __init__(self, num_classes: int | None = None, label_smoothing: float = 0.0) -> None:
        self.metrics: Mapping[str, Mode] = {"loss": "min", **accuracies(num_classes)}
        self._loss = SmoothCrossEntropy(label_smoothing)

    def forward(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits: Tensor = model(inputs)
        return logits

    def loss(self, outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of logits (B, K) against classes (B,)."""
        loss: Tensor = self._loss(outputs, targets)
        return loss

    def predict(self, outputs: Tensor) -> Tensor:
        """Logits (B, K) to classes (B,)."""
        return outputs.argmax(1)

    def meter(self) -> ClassificationMeter:
        """An empty meter."""
        return ClassificationMeter()

    def scores(self, outputs: Tensor) -> Tensor:
        """The logits (B, K)."""
        return outputs

    def probabilities(self, scores: Tensor) -> Tensor:
        """Their softmax (B, K)."""
        return scores.softmax(1)

    def score_meter(self) -> ClassificationMeter:
        """An empty meter: logits suffice for all metrics."""
        return self.meter()


class ClassificationMeter:
    """Cross entropy without smoothing, and the share of right answers."""

    def __init__(self) -> None:
        self._loss: Tensor | float = 0.0
        self._right = Hits()

    def update(self, outputs: Tensor, inputs: Tensor, targets: Tensor) -> None:
        """Takes logits (B, K) and classes (B,)."""
        self._loss = self._loss + F.cross_entropy(outputs.float(), targets, reduction="sum")
        self._right.update(outputs, targets)

    def compute(self) -> dict[str, float]:
        """Means over all images."""
        return {"loss": float(self._loss) / self._right.count, **self._right.compute()}


class Hits:
    """How often the true class scored highest, and how often among the five highest.

    A comparison and a sum need no library: torchmetrics would add seconds to the start of every
    worker, and give float32 shares.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first: Tensor | int = 0
        self._top: Tensor | int | None = None

    def update(self, scores: Tensor, classes: Tensor) -> None:
        """Takes scores (B, K) and classes (B,)."""
        self.count += len(classes)
        self._first = self._first + (scores.argmax(1) == classes).sum()
        if scores.shape[1] > TOP:
            among = (scores.topk(TOP).indices == classes[:, None]).sum()
            self._top = among if self._top is None else self._top + among

    def compute(self) -> dict[str, float]:
        """The shares; the second only where there are more than five classes."""
        shares = {"accuracy": float(self._first) / self.count}
        if self._top is not None:
            shares["top5_accuracy"] = float(self._top) / self.count
        return shares


def accuracies(num_classes: int | None) -> dict[str, Mode]:
    """What `Hits` yields for so many classes; None for unknown, which is all it can yield."""
    found: dict[str, Mode] = {"accuracy": "max"}
    return found if num_classes and num_classes <= TOP else {**found, "top5_accuracy": "max"}
