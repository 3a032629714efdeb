"""The losses, each a module; all give the mean over the batch."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from samtune.models.capsnet import lengths

PRESENT, ABSENT = 0.9, 0.1
ABSENT_WEIGHT = 0.5


class SmoothCrossEntropy(nn.Module):
    """Cross entropy whose target keeps 1 - s and spreads s evenly over all K classes.

    That is torch's convention (Szegedy et al. 2016, arXiv:1512.00567): the true class gets its
    share of s back. A well-known SAM implementation spreads s over the K - 1 wrong classes and
    prints the divergence from that target. Its s has the gradients of s * K / (K - 1) here: its
    0.1 for ten classes is 0.1111; its values are smaller by the target's entropy.

    Args:
        smoothing: s, at least 0 and below 1.
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, K, ...) and classes (B, ...)."""
        return F.cross_entropy(logits, targets, label_smoothing=self.smoothing)


class MaskLoss(nn.Module):
    """The loss of a mask: binary cross entropy of one logit a pixel, cross entropy of several.

    Args:
        smoothing: as in `SmoothCrossEntropy`; with one logit the two classes are its absence and
            presence.
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Logits (B, K, H, W) and masks (B, H, W) of classes; 0 and 1 where K is 1."""
        if logits.shape[1] > 1:
            return F.cross_entropy(logits, masks.long(), label_smoothing=self.smoothing)
        smoothed = masks.to(logits.dtype) * (1 - self.smoothing) + self.smoothing / 2
        return F.binary_cross_entropy_with_logits(logits[:, 0], smoothed)


class MarginLoss(nn.Module):
    """Sabour et al. 2017: the true capsule longer than 0.9, the others shorter than 0.1.

    Args:
        squared: square what a length is short of its margin, as the paper does.
    """

    def __init__(self, *, squared: bool = True) -> None:
        super().__init__()
        self.power = 2 if squared else 1

    def forward(self, capsules: Tensor, classes: Tensor) -> Tensor:
        """Capsules (B, K, D) and classes (B,)."""
        length = lengths(capsules)
        present = F.one_hot(classes, capsules.shape[1]).to(length.dtype)
        missing = (PRESENT - length).relu().pow(self.power)
        wrong = (length - ABSENT).relu().pow(self.power)
        return (present * missing + ABSENT_WEIGHT * (1 - present) * wrong).sum(1).mean()


class ReconstructionLoss(nn.Module):
    """Squared error of redrawn images.

    Args:
        reduction: over the pixels of an image; over the batch it is always the mean.
    """

    def __init__(self, reduction: Literal["sum", "mean"] = "sum") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, drawn: Tensor, images: Tensor) -> Tensor:
        """Both (B, C, H, W), pixels in [0, 1]."""
        error = (drawn - images).square().flatten(1)
        return (error.sum(1) if self.reduction == "sum" else error.mean(1)).mean()
