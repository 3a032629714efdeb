"""Batch norm of a batch that several ranks compute: normalised, and remembered, as by one process.

What one process normalises together, the ranks do `together`; where it takes a batch in parts, each
by itself and one after another, their running statistics end as if they had been `in_turn`. With
one rank both change nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from samtune.training.ranks import Ranks

ONE_GPU = "or give this model one GPU: study.resources.gpus: 1"


def check_batch_norms(model: nn.Module, processes: int, images: int | None = None) -> None:
    """Refuses a model whose batch norms several processes cannot compute as one would.

    Args:
        images: so many are normalised together; None is each process's own by themselves.

    Raises:
        ValueError: the message names the way out.
    """
    for name, module in _training(model):
        kind = f"{name or 'the model'} is a {type(module).__name__}"
        if isinstance(module, nn.SyncBatchNorm):
            raise ValueError(
                f"{kind}, which knows nothing of parts of a batch: use BatchNorm, which several "
                "processes here compute as one would"
            )
        if images is None:
            if module.track_running_stats and module.momentum is None:
                raise ValueError(
                    f"{kind} without momentum, and several processes do not add up the plain means "
                    f"that it takes then: give it a momentum, {ONE_GPU}"
                )
            continue
        if type(module).forward is not _BatchNorm.forward:
            raise ValueError(
                f"{kind}, which computes in its own way, and several processes cannot normalise a "
                "whole batch so: normalise parts of it with training.micro_batch_size, "
                f"{ONE_GPU}"
            )
        if images < processes:
            raise ValueError(
                f"{images} images are too few for {processes} processes that normalise them "
                f"together: raise training.batch_size or sam.ascent_fraction, {ONE_GPU}"
            )


@contextmanager
def together(model: nn.Module, ranks: Ranks, images: int) -> Iterator[None]:
    """Batches are normalised by the statistics of what all ranks have of them.

    It must hold for the backward pass, too, and each rank must take part.

    Args:
        images: how many all ranks have.

    Raises:
        ValueError: a batch norm of this model cannot do that.
    """
    if ranks.size == 1:
        yield
        return
    check_batch_norms(model, ranks.size, images)
    modules: list[Any] = [module for _, module in _training(model)]
    for module in modules:
        module.forward = functools.partial(_normalised_together, module, ranks)
    try:
        yield
    finally:
        for module in modules:
            del module.forward


@contextmanager
def in_turn(model: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Running statistics are on all ranks as if one had seen the parts of all, in their order.

    After some parts they are a weighed sum of what they were and of what was seen; the weights are
    powers of 1 - momentum, so each rank's sum can be continued from where the one before it ends.

    Raises:
        ValueError: a batch norm of this model cannot do that.
    """
    modules = [m for _, m in _training(model) if m.track_running_stats] if ranks.size > 1 else []
    if not modules:
        yield
        return
    check_batch_norms(model, ranks.size)
    before, passes_before = _statistics(modules), _passes(modules)
    yield
    ours = torch.cat([_statistics(modules), (_passes(modules) - passes_before).to(before.dtype)])
    found, passes = torch.split(ranks.gathered(ours), [len(before), len(modules)], 1)
    kept = torch.cat(
        [
            ((1 - m.momentum) ** passes[:, i : i + 1]).expand(-1, 2 * m.num_features)
            for i, m in enumerate(modules)
        ],
        1,
    )
    total = before
    for seen, weight in zip(found, kept, strict=True):
        total = seen + weight * (total - before)
    buffers = [buffer for m in modules for buffer in (m.running_mean, m.running_var)]
    torch._foreach_copy_(buffers, list(torch.split(total, [len(b) for b in buffers])))
    counts = passes_before + passes.sum(0).to(passes_before.dtype)
    torch._foreach_copy_([m.num_batches_tracked for m in modules], list(counts.unbind()))


def _training(model: nn.Module) -> list[tuple[str, Any]]:
    """The batch norms that normalise by what they are given, by name."""
    return [(n, m) for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.training]


def _statistics(modules: list[Any]) -> Tensor:
    return torch.cat([b for m in modules for b in (m.running_mean, m.running_var)])


def _passes(modules: list[Any]) -> Tensor:
    return torch.stack([m.num_batches_tracked for m in modules])


def _normalised_together(module: Any, ranks: Ranks, inputs: Tensor) -> Tensor:
    """In the place of a batch norm's `forward`."""
    module._check_input_dim(inputs)
    count, mean, var = _statistics_of_all(inputs.detach(), ranks)
    if module.track_running_stats and module.running_mean is not None:
        module.num_batches_tracked.add_(1)
        factor = module.momentum
        if factor is None:
            factor = 1 / module.num_batches_tracked.float()
        unbiased = var * (count / (count - 1))
        module.running_mean.lerp_(mean.to(module.running_mean.dtype), factor)
        module.running_var.lerp_(unbiased.to(module.running_var.dtype), factor)
    outputs: Tensor = _Normalise.apply(
        inputs, module.weight, module.bias, count, mean, var, module.eps
    )
    return outputs


def _statistics_of_all(inputs: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """How many values a channel has on all ranks together, their mean and their variance."""
    var, mean = torch.var_mean(_in_full(inputs), _but_channels(inputs), correction=0)
    ours = torch.cat([mean, var, mean.new_full((1,), inputs.numel() // inputs.shape[1])])
    means, variances, counts = torch.split(ranks.gathered(ours), [len(mean), len(mean), 1], 1)
    count = counts.sum()
    mean = (counts * means).sum(0) / count
    var = (counts * (variances + (means - mean).square())).sum(0) / count
    return count, mean, var


class _Normalise(torch.autograd.Function):
    """Batch norm whose mean and variance depend on what all ranks have."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        count: Tensor,
        mean: Tensor,
        var: Tensor,
        eps: float,
    ) -> Tensor:
        """The normalised inputs, in their own precision."""
        ctx.save_for_backward(inputs, weight, count, mean, (var + eps).rsqrt())
        ctx.has_bias = bias is not None
        return F.batch_norm(inputs, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Those of weight and bias are this rank's part of a sum, as all weights' are."""
        inputs, weight, count, mean, inverse = ctx.saved_tensors
        upstream, sums = _in_full(gradients[0]), _but_channels(inputs)
        per_channel = (1, -1) + (1,) * (inputs.dim() - 2)
        normalised = (_in_full(inputs) - mean.view(per_channel)) * inverse.view(per_channel)
        of_bias, of_weight = upstream.sum(sums), (upstream * normalised).sum(sums)
        both = torch.stack([of_bias, of_weight])
        dist.all_reduce(both)
        through_mean, through_var = (both / count).unbind()
        scale = inverse if weight is None else inverse * weight
        of_inputs = upstream - through_mean.view(per_channel)
        of_inputs = of_inputs - normalised * through_var.view(per_channel)
        of_inputs = (of_inputs * scale.view(per_channel)).to(inputs.dtype)
        learned = of_weight if weight is not None else None, of_bias if ctx.has_bias else None
        return of_inputs, *learned, None, None, None, None


def _in_full(tensor: Tensor) -> Tensor:
    """In float32 at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _but_channels(inputs: Tensor) -> list[int]:
    return [dim for dim in range(inputs.dim()) if dim != 1]
