"""What a learning curve is expected to come to, from the curves of the trials that went further.

The chain ladder of actuaries (Mack 1993, ASTIN Bulletin 23): what a trial still gains between two
epochs is what those that were seen at both gained in the mean. It is a model of one number an
epoch, so it works from two trials on; parametric curves (Domhan et al. 2015, IJCAI) need many.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from samtune.config.trial import BEST

Curve = Mapping[int, float]  # epoch -> value, all finite


def counted(curve: Curve, select: Literal["best", "last"], mode: Literal["min", "max"]) -> Curve:
    """The curve of what a trial counts by after each epoch: its last value, or its best so far."""
    if select == "last":
        return curve
    epochs = sorted(curve)
    values = itertools.accumulate((curve[e] for e in epochs), BEST[mode])
    return dict(zip(epochs, values, strict=True))


def gains(curves: Iterable[Curve], epochs: int) -> list[float]:
    """The mean gain from epoch i + 1 to the end, by i; where no trial went on there is none."""
    steps = np.zeros(epochs)
    counts = np.zeros(epochs)
    for curve in curves:
        for epoch in range(1, epochs):
            if epoch in curve and epoch + 1 in curve:
                steps[epoch - 1] += curve[epoch + 1] - curve[epoch]
                counts[epoch - 1] += 1
    means = np.divide(steps, counts, out=np.zeros(epochs), where=counts > 0)
    return list(np.cumsum(means[::-1])[::-1])
