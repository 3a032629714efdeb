"""A small model that does something at one of its training passes, and a trial of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from samtune.data import DataSplits
from samtune.registry import MODELS, register_model
from samtune.study.trial_folder import TrialFolder
from samtune.study.trial_run import Progress, run_trial

CPU = torch.device("cpu")
EPOCHS = 5
PASSES = 2  # an epoch's


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours runs after it."""


class Saboteur(nn.Module):
    """A small net that does something at one of its training passes."""

    at_pass: int = 0
    deed: Callable[[Tensor], Tensor]
    passes: int = 0

    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        if self.training:
            Saboteur.passes += 1
            if Saboteur.passes == Saboteur.at_pass:
                return Saboteur.deed(logits)
        return logits


if "saboteur" not in MODELS:
    register_model("saboteur")(Saboteur)


def run(trial: TrialFolder, data: DataSplits, session: int = 1) -> list[Progress]:
    """The trial from where it is to its end."""
    return list(run_trial(trial, session, device=CPU, data=data))


def curve(progress: list[Progress]) -> list[dict[str, float]]:
    """The epochs' metrics."""
    return [p.metrics for p in progress if p.metrics]
