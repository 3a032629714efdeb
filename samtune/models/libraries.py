"""The models of torchvision and timm, by their own names: `torchvision/resnet18`, `timm/...`.

Each library is asked for its list and its models only when a study names one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import nn

from samtune.errors import SamtuneError
from samtune.registry import MODELS, Family, Share

SMALL = 64
"""Below this many pixels a side, a first layer made for ImageNet leaves too little to see."""


@cache
def _torchvision_names() -> list[str]:
    from torchvision import models

    return list(models.list_models(module=models))


def _torchvision(name: str) -> Callable[..., nn.Module]:
    def build(
        *,
        in_channels: int,
        num_classes: int,
        image_size: tuple[int, int] | None = None,
        stem: Literal["auto", "imagenet", "small"] = "auto",
    ) -> nn.Module:
        """A classification model of torchvision, trained from scratch.

        Args:
            stem: the first layer: torchvision's own for large images (imagenet), one that keeps
                small images large (3x3, stride 1, no max pooling after it), or by size: small
                below 64 pixels.
        """
        from torchvision import models

        builder = models.get_model_builder(name)
        sized = _size_arguments(builder, image_size)
        wanted = {"num_classes": num_classes, **_no_extra_outputs(name), **sized}
        model = _built(lambda: builder(weights=None, **wanted))
        small = image_size is not None and min(image_size) < SMALL
        _adapt_stem(model, in_channels, small=stem == "small" or (stem == "auto" and small))
        return model

    return build


def _size_arguments(
    builder: Callable[..., Any], image_size: tuple[int, int] | None
) -> dict[str, Any]:
    """What models made for one size need to be told, under the name each has for it."""
    if image_size is None:
        return {}
    if builder.__name__.startswith("vit_"):
        if image_size[0] != image_size[1]:
            raise ValueError(f"{builder.__name__} takes square images, got {image_size}")
        return {"image_size": image_size[0]}
    return {"input_size": image_size} if builder.__name__ == "maxvit_t" else {}


def _no_extra_outputs(name: str) -> dict[str, bool]:
    """These two return a second classifier's logits too while training, unless told not to."""
    return {"aux_logits": False, "init_weights": True} if name in _WITH_AUX else {}


_WITH_AUX = ("googlenet", "inception_v3")


def _adapt_stem(model: nn.Module, in_channels: int, *, small: bool) -> None:
    """Exchanges the first convolution where the images ask for another."""
    path, first = next((p, m) for p, m in model.named_modules() if isinstance(m, nn.Conv2d))
    shrinks = first.stride != (1, 1)
    # A transformer's first convolution cuts patches; their number is fixed elsewhere.
    small = small and shrinks and not hasattr(model, "conv_proj")
    if first.in_channels == in_channels and not small:
        return
    model.set_submodule(
        path,
        nn.Conv2d(
            in_channels,
            first.out_channels,
            # The attributes' types allow any count of numbers; a Conv2d has two.
            3 if small else first.kernel_size,  # type: ignore[arg-type]
            1 if small else first.stride,  # type: ignore[arg-type]
            padding=1 if small else first.padding,  # type: ignore[arg-type]
            bias=first.bias is not None,
        ),
    )
    pools = [p for p, m in model.named_modules() if isinstance(m, nn.MaxPool2d)]
    if small and pools:
        model.set_submodule(pools[0], nn.Identity())


@cache
def _timm_names() -> list[str]:
    if find_spec("timm") is None:
        raise SamtuneError("timm is not installed: pip install 'samtune[timm]'")
    import timm

    return list(timm.list_models())


def _timm(name: str) -> Callable[..., nn.Module]:
    def build(
        *,
        in_channels: int,
        num_classes: int,
        image_size: tuple[int, int] | None = None,
        dropout: Share = 0.0,
    ) -> nn.Module:
        """A model of timm, trained from scratch.

        Args:
            dropout: probability before the classifier.
        """
        import timm

        wanted: dict[str, Any] = {
            "in_chans": in_channels,
            "num_classes": num_classes,
            "drop_rate": dropout,
        }
        try:
            return _built(lambda: timm.create_model(name, img_size=image_size, **wanted))
        except TypeError as error:  # only models made for one size know the argument
            if "img_size" not in str(error):
                raise
            return _built(lambda: timm.create_model(name, **wanted))

    return build


def _built(build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` gives, on the meta device also where it computes its sizes with tensors."""
    device = torch.get_default_device()
    try:
        return build()
    except NotImplementedError:  # a meta tensor has no values to read sizes from
        if device.type != "meta":
            raise
        with torch.device("cpu"):
            return build().to(device)


MODELS.register_family(
    Family(
        "torchvision",
        "classification",
        "Every classification model of torchvision; its first layer is adapted to small and "
        "grey images.",
        _torchvision_names,
        _torchvision,
    )
)
MODELS.register_family(
    Family(
        "timm", "classification", "Every model of timm, where it is installed.", _timm_names, _timm
    )
)
