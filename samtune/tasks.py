"""What a kind of task means: its loss, its metrics, and which way each metric improves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch.nn.functional as F
from torch import Tensor

from samtune.errors import UnknownNameError

Mode = Literal["min", "max"]


class Meter(Protocol):
    """Gathers what a metric needs over a split; sums stay on the device until `compute`."""

    def update(self, outputs: Any, inputs: Tensor, targets: Tensor) -> None:
        """Takes one batch."""
        ...

    def compute(self) -> dict[str, float]:
        """The task's metrics over everything taken."""
        ...


class Task(Protocol):
    """A kind of task; one object serves a whole run.

    `outputs` is whatever the task's models return: logits, or a tuple of several things.
    """

    metrics: Mapping[str, Mode]
    """What a meter yields, each with the direction in which it improves."""

    def loss(self, outputs: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        """The training loss, its mean over the batch."""
        ...

    def meter(self) -> Meter:
        """An empty meter."""
        ...


class Classification:
    """One class an image: cross entropy, accuracy.

    Args:
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016);
            training only, so that losses of different smoothing compare.
    """

    metrics: Mapping[str, Mode] = {"loss": "min", "accuracy": "max"}

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def loss(self, outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of logits (B, K) against classes (B,)."""
        return F.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)

    def meter(self) -> ClassificationMeter:
        """An empty meter."""
        return ClassificationMeter()


class ClassificationMeter:
    """Cross entropy without smoothing, and the share of right answers."""

    def __init__(self) -> None:
        self._count = 0
        self._loss: Tensor | float = 0.0
        self._right: Tensor | float = 0.0

    def update(self, outputs: Tensor, inputs: Tensor, targets: Tensor) -> None:
        """Takes logits (B, K) and classes (B,)."""
        self._count += len(targets)
        self._loss = self._loss + F.cross_entropy(outputs.float(), targets, reduction="sum")
        self._right = self._right + (outputs.argmax(1) == targets).sum()

    def compute(self) -> dict[str, float]:
        """Means over all images."""
        return {
            "loss": float(self._loss) / self._count,
            "accuracy": float(self._right) / self._count,
        }


def build_task(name: str, *, label_smoothing: float = 0.0) -> Task:
    """The task of this name."""
    if name != "classification":
        raise UnknownNameError("task", name, ["classification"])
    return Classification(label_smoothing)


def study_metrics(task: str) -> dict[str, Mode]:
    """What a study of this task can be judged by, with the mode that follows."""
    return {f"val_{name}": mode for name, mode in build_task(task).metrics.items()}
