"""A model's loss on fixed images, as a function of its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from samtune.tasks import Task
from samtune.training.loop import batch_loss

Batch = tuple[Tensor, Tensor]


class FixedLoss:
    """The training loss of these batches, in evaluation mode and in float32.

    Evaluation mode takes dropout away and lets batch norm normalise by its running statistics, so
    that the loss is a function of the weights alone.

    Args:
        batches: images with their targets, on the model's device.

    Attributes:
        params: the weights that are trained; frozen ones are part of the function.
    """

    def __init__(self, model: nn.Module, task: Task, batches: Sequence[Batch]) -> None:
        self.model = model.eval()
        self.task = task
        self.batches = batches
        self.params = [p for p in model.parameters() if p.requires_grad]

    def of(self, batch: Batch) -> Tensor:
        """The mean loss of one batch."""
        return batch_loss(self.model, self.task, *batch)

    def backward(self, batch: Batch) -> float:
        """The same as a number; its gradients are left in the parameters, in place of others."""
        self.model.zero_grad()
        loss = self.of(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    @torch.no_grad()
    def value(self) -> float:
        """The mean loss over all images."""
        sizes = [len(targets) for _, targets in self.batches]
        losses = [
            self.of(batch).double() * size for batch, size in zip(self.batches, sizes, strict=True)
        ]
        return torch.stack(losses).sum().item() / sum(sizes)

    @contextmanager
    def staying(self) -> Iterator[list[Tensor]]:
        """The weights as they are, to start from; they are put back whatever happens inside."""
        home = [p.detach().clone() for p in self.params]
        try:
            yield home
        finally:
            with torch.no_grad():
                for p, weights in zip(self.params, home, strict=True):
                    p.copy_(weights)

    def has_finite_gradients(self) -> bool:
        """Whether the last `backward` left such."""
        found = [p.grad for p in self.params if p.grad is not None]
        return math.isfinite(nn.utils.get_total_norm(found).item())
