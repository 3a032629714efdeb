"""A mean of the weights that training goes through, and batch norm statistics that fit it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn, update_bn

from samtune.training.precision import Precision, autocast

# A running mean with torch's momentum of 0.1 is as precise as a plain one over 19 batches.
STATISTICS_BATCHES = 20


class WeightAverage:
    """A second model, whose weights are a mean over those that it was shown.

    Buffers are those of the model it was shown last, save batch norm's statistics, which are of
    other weights and need `estimate_statistics`.

    Args:
        model: copied, as it is.
        ema_decay: of an exponential moving average (Polyak and Juditsky 1992); it begins at
            2 / 11 and rises as (1 + n) / (10 + n) with the number of updates n, so that the first
            weights are forgotten however few the steps. None weighs all alike, as stochastic
            weight averaging does (Izmailov et al. 2018, arXiv:1803.05407).

    Attributes:
        count: how many weights the mean is over; with 0 it is none yet.
    """

    def __init__(self, model: nn.Module, ema_decay: float | None) -> None:
        self.model = copy.deepcopy(model)
        self.ema_decay = ema_decay
        self.count = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes the weights of `model` into the mean."""
        averaged: Any = list(self.model.parameters())
        current: Any = list(model.parameters())
        if self.count == 0:
            torch._foreach_copy_(averaged, current)
        elif self.ema_decay is None:
            take_in = get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]
            take_in(averaged, current, self.count)
        else:
            decay = min(self.ema_decay, (1 + self.count) / (10 + self.count))
            take_in = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            take_in(averaged, current, self.count)
        for ours, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            ours.copy_(theirs)
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        """The averaged model's state, and the count."""
        return {"model": self.model.state_dict(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        self.model.load_state_dict(state["model"])
        self.count = state["count"]


def estimate_statistics(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], precision: Precision, seed: int
) -> None:
    """Gives batch norm the statistics of these batches under the model's weights.

    Args:
        seed: of dropout, which is on as in training.
    """
    torch.manual_seed(seed)
    device = next(model.parameters()).device
    with autocast(precision, device):
        update_bn((inputs for inputs, _ in batches), model)
