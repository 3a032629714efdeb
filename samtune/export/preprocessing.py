"""A network with its normalisation inside, so that it takes images as people have them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from samtune.tasks import Task

SLACK = 0.5
"""How far outside [0, 1] pixels may be: resizing overshoots a little, but what is normalised
already, or goes to 255, is far outside."""
OUT_OF_RANGE = (
    "images must hold pixels from 0 to 1 and must not be normalised: the model does that itself"
)


class Preprocessed(nn.Module):
    """Float32 images (B, C, H, W) with pixels in [0, 1] to the task's scores.

    Its arithmetic is that of `samtune.data.batches`, from bytes on: an 8-bit image comes to
    the very numbers that the network was trained and evaluated on. What it raises of wrong images
    is part of it: graphs that are made of it raise that, too, where their format can.

    Args:
        mean, std: per channel, of pixels in [0, 1].
    """

    scale: Tensor
    offset: Tensor

    def __init__(
        self, network: nn.Module, task: Task, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.network = network
        self._task = task
        deviation = torch.tensor(std)
        self.register_buffer("scale", (1 / (255 * deviation))[:, None, None])
        self.register_buffer("offset", (-torch.tensor(mean) / deviation)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """The scores (B, K), or (B, K, H', W') for masks."""
        torch.ops.aten._assert_tensor_metadata(images, dtype=torch.float32)
        # Two reductions and no branch: a branch on values cannot be traced.
        outside = torch.maximum(images.max() - 1, -images.min())
        torch.ops.aten._assert_async.msg(outside <= SLACK, OUT_OF_RANGE)
        return self._task.scores(self.network(images * 255 * self.scale + self.offset))


def as_unit_floats(images: Tensor, channels: int) -> Tensor:
    """Images as people have them as what `Preprocessed` takes.

    Args:
        images: (B, C, H, W), uint8 from 0 to 255, or floating-point numbers from 0 to 1.

    Raises:
        ValueError: they are neither.
    """
    if images.dim() != 4 or images.shape[1] != channels:
        raise ValueError(f"images must be (B, {channels}, H, W), got {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        return images.float() / 255
    if not images.is_floating_point():
        raise ValueError(f"images must be uint8 or floating-point numbers, got {images.dtype}")
    if images.numel():
        low, high = (float(value) for value in images.aminmax())
        if not (low >= -SLACK and high <= 1 + SLACK):  # NaN is outside, too
            raise ValueError(f"{OUT_OF_RANGE}; got {low:.4g} to {high:.4g}")
    return images.float()
