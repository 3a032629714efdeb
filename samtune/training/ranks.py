"""The processes that compute a trial together: who does what, and what they tell each other.

Each rank (a process, on a GPU of its own) computes its part of every batch, and what they have
found is added up, so that all take the same step: what one process would have taken, up to
rounding. A decision, such as to skip a step, is made by each of them from numbers that are the
same everywhere. One process is the case of a single rank, to whom everything falls.

Gradients are added up here and not by torch's DistributedDataParallel: that takes part in every
backward pass, and expects each to reach all weights, once. SAM-ON's climb reaches the norm layers
alone, and a rank may have several parts of a batch, or none.

Where the processes come from is the matter of `processes`, batch norm that of `batch_norm`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")
Batch = tuple[Tensor, Tensor]
AS_NUMBERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


class Ranks:
    """All ranks, as one of them sees them.

    With several, all methods but `own` wait for the other ranks: each must call them in turn.

    Args:
        rank: which of them this is.
        size: how many there are.
        device: where this one computes.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.rank = rank
        self.size = size
        self._device = device
        self._with_gradient: dict[tuple[nn.Parameter, ...], list[bool]] = {}

    def own(self, parts: Sequence[T]) -> list[tuple[int, T]]:
        """The parts that fall to this rank, neighbors all, each with its number among all."""
        each, more = divmod(len(parts), self.size)
        start = self.rank * each + min(self.rank, more)
        return list(enumerate(parts))[start : start + each + (self.rank < more)]

    def batches(self, batches: Iterator[Batch] | None, count: int) -> Iterator[Batch]:
        """An epoch's batches, which the first rank alone reads, on every rank.

        Args:
            batches: the first rank's; None on the others.
            count: how many, as the first rank knows.

        Raises:
            ValueError: they are not as many, or not of one shape.
        """
        if batches is None:
            yield from self._received()
        elif self.size == 1:
            yield from batches
        else:
            yield from self._handed_round(batches, count)

    def add_up_gradients(self, params: Sequence[nn.Parameter]) -> None:
        """Makes every gradient the sum of what the ranks have computed of it.

        Raises:
            ValueError: which weights have one differs between the ranks, or between the steps.
        """
        if self.size == 1:
            return
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for p in self._reached(tuple(params)):
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            by_type.setdefault(p.grad.dtype, []).append(p.grad)
        for gradients in by_type.values():
            flat = torch.cat([g.reshape(-1) for g in gradients])
            dist.all_reduce(flat)
            parts = torch.split(flat, [g.numel() for g in gradients])
            sums = [part.view(g.shape) for part, g in zip(parts, gradients, strict=True)]
            torch._foreach_copy_(gradients, sums)

    def gathered(self, tensor: Tensor) -> Tensor:
        """The tensors of all ranks, which are of one shape, in their order."""
        if self.size == 1:
            return tensor[None]
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor)
        return torch.stack(found)

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum of the tensors of all ranks."""
        return self.gathered(tensor).sum(0)

    def check_alike(self, model: nn.Module) -> None:
        """Refuses a model that is not the same on all ranks any more.

        Raises:
            ValueError: it has something that training changes and nothing adds up.
        """
        if self.size == 1:
            return
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        sums = [
            t.detach().contiguous().view(AS_NUMBERS[t.element_size()]).sum(dtype=torch.int64)
            for t in map(_as_real, state.values())
        ]
        found = self.gathered(torch.stack(sums))
        differing = (found != found[0]).any(0).tolist()
        if names := [name for name, differs in zip(state, differing, strict=True) if differs]:
            raise ValueError(
                f"after an epoch {names[0]} is not the same in all {self.size} processes of the "
                "trial: training changes it in a way that they cannot add up. Give this model one "
                "GPU: study.resources.gpus: 1"
            )

    def _handed_round(self, batches: Iterator[Batch], count: int) -> Iterator[Batch]:
        layouts: list[_Layout] = []
        given = 0
        for batch in batches:
            if not layouts:
                layouts = [_Layout.of(t) for t in batch]
                dist.broadcast_object_list([layouts, count], src=0)
            if given == count or layouts != [_Layout.of(t) for t in batch]:
                raise ValueError(
                    f"several processes need an epoch of {count} batches of one shape: number "
                    f"{given + 1} is {[tuple(t.shape) for t in batch]}"
                )
            for t, layout in zip(batch, layouts, strict=True):
                dist.broadcast(layout.memory(t).contiguous(), src=0)
            given += 1
            yield batch
        if given < count:
            raise ValueError(f"an epoch of {count} batches ended after {given}")

    def _received(self) -> Iterator[Batch]:
        told: list[Any] = [None, None]
        dist.broadcast_object_list(told, src=0)
        layouts, count = told
        for _ in range(count):
            inputs, targets = (layout.empty(self._device) for layout in layouts)
            for t, layout in zip((inputs, targets), layouts, strict=True):
                dist.broadcast(layout.memory(t), src=0)
            yield inputs, targets

    def _reached(self, params: tuple[nn.Parameter, ...]) -> list[nn.Parameter]:
        """Those that have a gradient, on any rank."""
        here = [p.grad is not None for p in params]
        if params not in self._with_gradient:  # asked once, since the answer waits for the device
            flags = torch.tensor(here, dtype=torch.int32, device=params[0].device)
            self._with_gradient[params] = self.summed(flags).bool().tolist()
        agreed = self._with_gradient[params]
        if any(here) and here != agreed:
            raise ValueError(
                "which weights of this model get a gradient changes from batch to batch, which "
                "several processes cannot follow. Give it one GPU: study.resources.gpus: 1"
            )
        return [p for p, wanted in zip(params, agreed, strict=True) if wanted]


@dataclass(frozen=True)
class _Layout:
    """What another rank must know of a tensor to take it in as it is."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool

    @classmethod
    def of(cls, tensor: Tensor) -> _Layout:
        is_last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
        return cls(tuple(tensor.shape), tensor.dtype, is_last and not tensor.is_contiguous())

    def empty(self, device: torch.device | None) -> Tensor:
        """Room for such a tensor."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return torch.empty(self.shape, dtype=self.dtype, device=device, memory_format=layout)

    def memory(self, tensor: Tensor) -> Tensor:
        """The tensor in the order of its memory, which is what can be sent."""
        return tensor.permute(0, 2, 3, 1) if self.channels_last else tensor


def _as_real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


ALONE = Ranks()
