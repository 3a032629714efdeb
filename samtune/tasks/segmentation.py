"""One class a pixel: masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from samtune.models.unet import center_crop
from samtune.tasks.base import Mode
from samtune.tasks.losses import MaskLoss


class Segmentation:
    """One class a pixel; a single class is foreground against background.

    Where a model's output is smaller than its input, targets are cropped to its middle.

    Args:
        label_smoothing: training only, so that losses of different smoothing compare.
    """

    def __init__(self, num_classes: int | None = None, label_smoothing: float = 0.0) -> None:
        self.metrics: Mapping[str, Mode] = {
            "loss": "min",
            "dice": "max",
            "iou": "max",
            "pixel_accuracy": "max",
        }
        self._num_classes = num_classes
        self._loss = MaskLoss(label_smoothing)

    def forward(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, K, H', W')."""
        logits: Tensor = model(inputs)
        return logits

    def loss(self, outputs: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of logits (B, K, H', W') against masks (B, H, W)."""
        loss: Tensor = self._loss(outputs, _cropped(targets, outputs))
        return loss

    def predict(self, outputs: Tensor) -> Tensor:
        """Logits (B, K, H, W) to masks (B, H, W)."""
        return (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(1)

    def meter(self) -> SegmentationMeter:
        """An empty meter."""
        if self._num_classes is None:
            raise ValueError("segmentation is measured class by class: num_classes is required")
        return SegmentationMeter(self, self._num_classes)

    def scores(self, outputs: Tensor) -> Tensor:
        """The logits (B, K, H', W')."""
        return outputs

    def probabilities(self, scores: Tensor) -> Tensor:
        """(B, K, H', W'): their sigmoid where foreground is the only class, else their softmax."""
        return scores.sigmoid() if scores.shape[1] == 1 else scores.softmax(1)

    def score_meter(self) -> SegmentationMeter:
        """An empty meter: logits suffice for all metrics."""
        return self.meter()


class SegmentationMeter:
    """Dice, intersection over union and pixel accuracy over all pixels of all images.

    Dice and IoU are those of the foreground, or the mean over the classes that occur. The counts
    are torchmetrics'.
    """

    def __init__(self, task: Segmentation, num_classes: int) -> None:
        # Here and not above: it takes seconds, which only segmentation should spend.
        from torchmetrics.classification import MultilabelStatScores

        self._task = task
        self._num_classes = num_classes
        # Each class against the rest. Unlike torchmetrics' multiclass counts, these never wait
        # for a GPU; nor must its checks of every batch.
        # Nor for other processes of the trial: the one that evaluates does so alone.
        self._counts = MultilabelStatScores(
            num_classes, average=None, validate_args=False, sync_on_compute=False
        )
        self._unsmoothed = MaskLoss()
        self._loss: Tensor | float = 0.0
        self._pixels = 0

    def update(self, outputs: Tensor, inputs: Tensor, targets: Tensor) -> None:
        """Takes logits (B, K, H', W') and masks (B, H, W)."""
        targets = _cropped(targets, outputs)
        self._pixels += targets.numel()
        mean = self._unsmoothed(outputs.float(), targets)
        self._loss = self._loss + mean.double() * targets.numel()
        self._counts.to(outputs.device)
        predicted = self._task.predict(outputs)
        self._counts.update(self._one_mask_a_class(predicted), self._one_mask_a_class(targets))

    def compute(self) -> dict[str, float]:
        """Shares of all pixels."""
        hit, false, _, missed, _ = self._counts.compute().reshape(-1, 5).double().cpu().T
        occurs = hit + false + missed > 0
        dice = (2 * hit / (2 * hit + false + missed))[occurs]
        iou = (hit / (hit + false + missed))[occurs]
        # With one class a wrong pixel is false or missed; with several it is each once.
        wrong = float((false + missed).sum()) / (1 if self._num_classes == 1 else 2)
        return {
            "loss": float(self._loss) / self._pixels,
            "dice": _mean(dice),
            "iou": _mean(iou),
            "pixel_accuracy": 1 - wrong / self._pixels,
        }

    def _one_mask_a_class(self, mask: Tensor) -> Tensor:
        """(B, H, W) to (B, K, H, W) of 0 and 1."""
        if self._num_classes == 1:
            return mask[:, None].long()
        classes = torch.arange(self._num_classes, device=mask.device)
        return (mask[:, None] == classes[:, None, None]).long()


def _cropped(masks: Tensor, outputs: Tensor) -> Tensor:
    return center_crop(masks, (outputs.shape[-2], outputs.shape[-1]))


def _mean(values: Any) -> float:
    # No class anywhere, neither drawn nor found: all of nothing is right.
    return float(values.mean()) if len(values) else 1.0
