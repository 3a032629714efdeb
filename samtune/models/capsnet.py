"""Capsule network with routing by agreement (Sabour, Frosst and Hinton 2017, arXiv:1710.09829).

    images (B, C, H, W)
      -> conv 9x9, 256 channels, ReLU                      (H - 8, W - 8)
      -> conv 9x9, stride 2: 32 primary capsules a place   (B, 1152, 8) at 28x28
      -> Squash -> Router, 3 iterations                    (B, num_classes, 16)

A capsule's length says how surely its class is there, its direction what the image looks like: a
decoder of three linear layers redraws the image from the capsule of one class.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samtune.registry import Count, register_model

PRIMARY_SIZE = 8
CAPSULE_SIZE = 16
EPSILON = 1e-8


@register_model("capsnet", task="capsule")
def capsnet(
    *,
    in_channels: int,
    num_classes: int,
    image_size: tuple[int, int],
    channels: Count = 256,
    primary_capsules: Count = 32,
    kernel_size: Count = 9,
    decoder: Sequence[Count] = (512, 1024),
    routing_iterations: Count = 3,
    routing_softmax: Literal["classes", "inputs"] = "classes",
    mask_by: Literal["label", "prediction"] = "label",
    margin_squared: bool = True,
    reconstruction_weight: float = 0.0005,
    reconstruction_reduction: Literal["sum", "mean"] = "sum",
) -> CapsNet:
    """A capsule network; an image's class is that of its longest capsule.

    The defaults are the paper's. A well-known implementation departs from it in what is routed
    (`routing_softmax: inputs`), drawn (`mask_by: prediction`) and lost (`margin_squared: false`,
    `reconstruction_reduction: mean`). Routing weights start normal with deviation 0.01.

    Args:
        channels: of the first convolution.
        primary_capsules: capsule types of the second convolution, 8 numbers each.
        kernel_size: of both convolutions; images below 17 pixels need a smaller one.
        decoder: widths of the hidden layers that redraw the image.
        routing_iterations: how often agreement is counted.
        routing_softmax: what an input's couplings add up to 1 over: the paper's classes, or inputs.
        mask_by: whose capsule is redrawn while training: the true class's or the longest.
        margin_squared: square the two margins of the loss, as in the paper.
        reconstruction_weight: what the squared error of the redrawn image counts.
        reconstruction_reduction: add that error over an image's pixels, or take its mean.
    """
    del margin_squared, reconstruction_weight, reconstruction_reduction  # the task reads these
    places = [((side - kernel_size + 1) - kernel_size) // 2 + 1 for side in image_size]
    if min(places) < 1:
        size = "x".join(str(side) for side in image_size)
        largest = (min(image_size) + 1) // 2
        raise ValueError(
            f"kernel_size {kernel_size} is too large for images of {size}; at most {largest}"
        )
    return CapsNet(
        PrimaryCapsules(in_channels, channels, primary_capsules, kernel_size),
        Router(
            primary_capsules * places[0] * places[1],
            num_classes,
            routing_iterations,
            dim=2 if routing_softmax == "classes" else 1,
        ),
        Decoder(num_classes, decoder, (in_channels, *image_size)),
        mask_by,
    )


class CapsNet(nn.Module):
    """See `capsnet`."""

    def __init__(
        self, primary: PrimaryCapsules, router: Router, decoder: Decoder, mask_by: str
    ) -> None:
        super().__init__()
        self.primary = primary
        self.router = router
        self.decoder = decoder
        self.mask_by = mask_by

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | Callable[[Tensor], Tensor]]:
        """Capsules (B, num_classes, 16), and the images (B, C, H, W) drawn from the longest.

        While training, where the true class's capsule is to be drawn, the second is a function of
        the classes (B,) that draws: a model never sees labels.
        """
        capsules = self.router(self.primary(images))
        if self.training and self.mask_by == "label":
            return capsules, partial(self.decoder, capsules)
        return capsules, self.decoder(capsules, lengths(capsules).argmax(1))


def lengths(capsules: Tensor) -> Tensor:
    """(..., D) to (...): the norms, with gradient 0 instead of NaN where one is 0."""
    return (_squared(capsules) + EPSILON).sqrt()


def _squared(vectors: Tensor) -> Tensor:
    """(..., D) to (...): the squared norms, in float32 at least."""
    # float16 has no number as small as the epsilon, nor the square of one below 0.0002.
    full = torch.promote_types(vectors.dtype, torch.float32)
    return vectors.to(full).square().sum(-1)


class Squash(nn.Module):
    """Keeps a vector's direction and brings its length n to n^2 / (1 + n^2), below 1."""

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., D) to (..., D); the gradient at 0 is 0."""
        squared = _squared(vectors)[..., None]
        return vectors * (squared / (1 + squared) * torch.rsqrt(squared + EPSILON))


class PrimaryCapsules(nn.Module):
    """Two convolutions whose channels are read as capsules of 8 numbers at every place."""

    def __init__(self, in_channels: int, channels: int, capsules: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel_size)
        self.capsules = nn.Conv2d(channels, capsules * PRIMARY_SIZE, kernel_size, stride=2)
        self.squash = Squash()

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, capsules * places, 8)."""
        x = self.capsules(F.relu(self.conv(images), inplace=True))
        # Not `len(x)`, which would fix the size of the batch in an exported graph.
        squashed: Tensor = self.squash(x.reshape(x.shape[0], PRIMARY_SIZE, -1).transpose(1, 2))
        return squashed


class Router(nn.Module):
    """Couples each input capsule most to the classes whose capsule agrees with its prediction.

    Args:
        dim: 2 makes an input's couplings to all classes add up to 1; 1 a class's to all inputs.
    """

    def __init__(self, inputs: int, num_classes: int, iterations: int, dim: int) -> None:
        super().__init__()
        shape = (inputs, num_classes, PRIMARY_SIZE, CAPSULE_SIZE)
        self.weight = nn.Parameter(0.01 * torch.randn(shape))
        self.iterations = iterations
        self.dim = dim
        self.squash = Squash()

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, inputs, 8) to (B, num_classes, 16)."""
        predictions = torch.einsum("ikpc,bip->bikc", self.weight, inputs)
        agreement = torch.zeros_like(predictions[..., 0])
        for i in range(self.iterations):
            couplings = agreement.softmax(self.dim)
            capsules: Tensor = self.squash(torch.einsum("bik,bikc->bkc", couplings, predictions))
            if i + 1 < self.iterations:
                agreement = agreement + torch.einsum("bikc,bkc->bik", predictions, capsules)
        return capsules


class Decoder(nn.Module):
    """Draws an image with pixels in [0, 1] from the capsule of one class."""

    def __init__(
        self, num_classes: int, widths: Sequence[int], image_shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.image_shape = image_shape
        channels, height, width = image_shape
        sizes = [num_classes * CAPSULE_SIZE, *widths]
        self.hidden = nn.ModuleList(
            nn.Linear(before, after) for before, after in itertools.pairwise(sizes)
        )
        self.pixels = nn.Linear(sizes[-1], channels * height * width)

    def forward(self, capsules: Tensor, classes: Tensor) -> Tensor:
        """Capsules (B, num_classes, 16) and classes (B,) to images (B, C, H, W)."""
        chosen = F.one_hot(classes, capsules.shape[1]).to(capsules.dtype)
        x = (capsules * chosen[..., None]).flatten(1)
        for linear in self.hidden:
            x = F.relu(linear(x))
        return torch.sigmoid(self.pixels(x)).reshape(-1, *self.image_shape)
