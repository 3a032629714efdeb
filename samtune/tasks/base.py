"""What every kind of task offers to the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from torch import Tensor, nn

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

    `outputs` is whatever the task's models return: logits, or a tuple of several things. Only
    `forward` may compute with a model's weights: it runs in the precision that the trial trains
    in, and all that follows gets its outputs in float32.
    """

    metrics: Mapping[str, Mode]
    """What a meter yields, each with the direction in which it improves."""

    def forward(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Any:
        """The outputs for `loss`, of a model in training."""
        ...

    def loss(self, outputs: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        """The training loss, its mean over the batch."""
        ...

    def predict(self, outputs: Any) -> Tensor:
        """The class of each image, or of each pixel."""
        ...

    def meter(self) -> Meter:
        """An empty meter."""
        ...

    def scores(self, outputs: Any) -> Tensor:
        """A number for each class of each image, or of each pixel: what an exported model gives."""
        ...

    def probabilities(self, scores: Tensor) -> Tensor:
        """How sure the scores are of each class, from 0 to 1."""
        ...

    def score_meter(self) -> Meter:
        """An empty meter of scores: the metrics that they suffice for."""
        ...
