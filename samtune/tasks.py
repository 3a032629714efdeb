"""What a kind of task means: its loss, its metrics, and which way each metric improves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from samtune.errors import UnknownNameError

Mode = Literal["min", "max"]


class Task(Protocol):
    """A kind of task; one object serves a whole run."""

    metrics: Mapping[str, Mode]
    """What evaluation yields, each with the direction in which it improves."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The training loss, its mean over the batch."""
        ...

    def tally(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """For each metric its sum over the batch's images, left on the device."""
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

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of logits (B, K) against classes (B,)."""
        return F.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)

    def tally(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Sums of cross entropy and of right answers."""
        return {
            "loss": F.cross_entropy(outputs.float(), targets, reduction="sum"),
            "accuracy": (outputs.argmax(1) == targets).sum(dtype=torch.float64),
        }


def build_task(name: str, *, label_smoothing: float = 0.0) -> Task:
    """The task of this name."""
    if name != "classification":
        raise UnknownNameError("task", name, ["classification"])
    return Classification(label_smoothing)


def study_metrics(task: str) -> dict[str, Mode]:
    """What a study of this task can be judged by, with the mode that follows."""
    return {f"val_{name}": mode for name, mode in build_task(task).metrics.items()}
