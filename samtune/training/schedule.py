"""How the learning rate rises and falls."""

from __future__ import annotations

import math

from samtune.config.trial import TrainingConfig

STEP_AT = (0.3, 0.6, 0.8)
STEP_FACTOR = 0.2


def steps_per_epoch(training: TrainingConfig, images: int) -> int:
    """Optimizer steps of one epoch over so many images: what `Batches.shuffled` gives."""
    return max(1, images // training.batch_size)


def lr_factor(training: TrainingConfig, step: int, epoch_steps: int) -> float:
    """What the learning rate is multiplied by in the step after `step` finished ones.

    The k-th of W warm-up steps has k/W of the rate (Goyal et al. 2017, arXiv:1706.02677); the
    schedule goes over the epochs that are left. `cosine` falls to 0 at the end (Loshchilov and
    Hutter 2017); `step` falls to a fifth at 30, 60 and 80 %, as wide ResNets are trained
    (Zagoruyko and Komodakis 2016).

    Args:
        epoch_steps: as `steps_per_epoch` counts them.
    """
    warmup_steps = training.warmup_epochs * epoch_steps
    warmed_up = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    by_step = training.lr_interval == "step"
    epoch = step / epoch_steps if by_step else step // epoch_steps
    left = training.epochs - training.warmup_epochs
    return warmed_up * _scheduled(training, max(0.0, epoch - training.warmup_epochs) / left)


def _scheduled(training: TrainingConfig, progress: float) -> float:
    match training.lr_schedule:
        case "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        case "step":
            return float(STEP_FACTOR ** sum(progress >= at for at in STEP_AT))
        case "constant":
            return 1.0
