"""How the learning rate falls."""

from __future__ import annotations

import math

from samtune.config.schema import TrainingConfig

STEP_AT = (0.3, 0.6, 0.8)
STEP_FACTOR = 0.2


def lr_factor(training: TrainingConfig, epoch: int) -> float:
    """What the learning rate is multiplied by in the epoch after `epoch` finished ones.

    `cosine` falls to 0 at the end (Loshchilov and Hutter 2017); `step` falls to a fifth at 30, 60
    and 80 % of the epochs, as wide ResNets are trained (Zagoruyko and Komodakis 2016).
    """
    progress = epoch / training.epochs
    match training.lr_schedule:
        case "cosine":
            return (1 + math.cos(math.pi * progress)) / 2
        case "step":
            return float(STEP_FACTOR ** sum(progress >= at for at in STEP_AT))
        case "constant":
            return 1.0
