"""What a study may show its trials by, beside the metric that ranks them: `study.metrics`.

Each is a metric of the task, or one of these costs; which way it is better follows from its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

COSTS: Mapping[str, str] = {
    "parameters": "how many weights the model has",
    "epoch_s": "seconds of an epoch, the median over the trial's",
    "gradient_evaluations": "up to the epoch that the trial counts by",
}


def mode_of(name: str) -> Literal["min", "max"]:
    """Costs, losses and errors are better when they are smaller, all else when it is larger."""
    return "min" if name in COSTS or name.endswith(("loss", "error")) else "max"
