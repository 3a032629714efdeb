"""The models of torchvision and timm, by their own names: `torchvision/resnet18`, `timm/...`.

Each library is asked for its list and its models only when a study names one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import nn

from samtune.errors import SamtuneError
from samtune.models import stems
from samtune.models.frozen import Freeze
from samtune.models.frozen import freeze as freeze_parts
from samtune.models.pretrained import (
    head_of,
    load_pretrained,
    torchvision_weights,
    weights_wanted,
    with_timms_weights,
)
from samtune.models.stems import Stem
from samtune.registry import MODELS, Family, Share


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
        stem: Stem = "auto",
        pretrained: bool = False,
        freeze: Freeze = (),
    ) -> nn.Module:
        """A classification model of torchvision, from scratch or from its ImageNet weights.

        Args:
            stem: the first layer: torchvision's own for large images (imagenet), one that keeps
                small images large (3x3, stride 1, no max pooling after it), or by size: small
                below 64 pixels, but always its own where it is pretrained.
            pretrained: begin with torchvision's best weights, all but the classifier's, which start
                afresh, as a small stem does. They have seen images normalised by ImageNet's mean
                and deviation. For grey images the first kernels are added up over the colours.
            freeze: parts that do not train, by their names in the model, such as conv1, bn1 and
                layer1 of a ResNet; backbone is all but the classifier. Their batch norms use the
                statistics they came with.
        """
        from torchvision import models

        builder = models.get_model_builder(name)
        weights = models.get_model_weights(name).DEFAULT if pretrained else None
        extra = _no_extra_outputs(name)
        if weights:
            image_size = _size_of(weights, name, builder, image_size)
            stem = "imagenet" if stem == "auto" else stem
            if in_channels not in (1, 3) or (in_channels == 1 and name in _WITH_AUX):
                raise ValueError(f"pretrained {name} does not see images of {in_channels} channels")
            extra |= {"transform_input": True} if name in _WITH_AUX else {}
        extra |= _size_arguments(builder, image_size)

        def make(classes: int) -> nn.Module:
            return _built(lambda: builder(weights=None, num_classes=classes, **extra))

        model = make(num_classes)
        found = stems.first_convolution(model)
        assert found is not None, "torchvision's models begin with a convolution"
        first, conv = found
        small = _becomes_small(name, stem, image_size, conv)
        if small or conv.in_channels != in_channels:
            stems.adapt(conv, in_channels, small=small)
        if small and (pooling := stems.first_pooling(model, of_stem=False)):
            model.set_submodule(pooling, nn.Identity())
        head = head_of(make, num_classes) if weights or freeze else frozenset()
        if weights and weights_wanted():
            fresh = {*head, f"{first}.weight", f"{first}.bias"} if small else head
            load_pretrained(model, torchvision_weights(name, weights), first=first, fresh=fresh)
        freeze_parts(model, freeze, head)
        return model

    return build


def _size_of(
    weights: Any, name: str, builder: Callable[..., Any], image_size: tuple[int, int] | None
) -> tuple[int, int] | None:
    """The images' size, which must be the weights' own where a model is made for one size."""
    made_for: tuple[int, int] = weights.meta["min_size"]
    if not _size_arguments(builder, made_for) or image_size == made_for:
        return image_size
    if image_size is None:
        return made_for
    sizes = ["x".join(str(side) for side in size) for size in (made_for, image_size)]
    raise ValueError(f"pretrained {name} takes images of {sizes[0]}, got {sizes[1]}")


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


def _no_extra_outputs(name: str) -> dict[str, Any]:
    """These two return a second classifier's logits too while training, unless told not to."""
    return {"aux_logits": False, "init_weights": True} if name in _WITH_AUX else {}


_WITH_AUX = ("googlenet", "inception_v3")


def _becomes_small(
    name: str, stem: Stem, image_size: tuple[int, int] | None, conv: nn.Conv2d
) -> bool:
    if stem == "small" and stems.cuts_patches(conv):
        raise _cannot_be_small(name)
    wanted = stem == "small" or (stem == "auto" and stems.are_small(image_size))
    return wanted and stems.shrinks(conv)


def _cannot_be_small(name: str) -> ValueError:
    return ValueError(f"stem 'small' does not go with {name}, whose later layers know its patches")


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
        stem: Stem = "imagenet",
        pretrained: bool = False,
        freeze: Freeze = (),
    ) -> nn.Module:
        """A model of timm, from scratch or from its pretrained weights.

        Args:
            dropout: probability before the classifier.
            stem: the first layer: timm's own (imagenet), one that keeps small images large (3x3,
                stride 1, no max pooling after it), or by size: small below 64 pixels where the
                model allows it, but always its own where it is pretrained.
            pretrained: begin with timm's default weights, all but the classifier's, which start
                afresh, as a small stem does. Most have seen images normalised by ImageNet's mean
                and deviation. Timm fits the first kernels to the images' channels.
            freeze: parts that do not train, by their names in the model, such as conv1, bn1 and
                layer1 of a ResNet; backbone is all but the classifier. Their batch norms use the
                statistics they came with.
        """
        import timm

        if pretrained and not timm.models.is_model_pretrained(name):
            raise ValueError(f"timm has no pretrained weights of {name}")
        stem = "imagenet" if pretrained and stem == "auto" else stem
        settings = {"in_chans": in_channels, "drop_rate": dropout}
        settings |= _ONLY_PRETRAINED.get(name, {}) if pretrained else {}

        def make(classes: int, **more: Any) -> nn.Module:
            return _timms(name, image_size, {"num_classes": classes, **settings, **more})

        # Before the weights: what cannot be built at all is said as that.
        head = head_of(make, num_classes) if pretrained or freeze else frozenset()
        if pretrained and weights_wanted():
            model = with_timms_weights(name, lambda **more: make(num_classes, **more))
        else:
            model = make(num_classes)
        config: Any = timm.models.get_pretrained_cfg(name)
        if pretrained and num_classes == config.num_classes:
            cast(Any, model).reset_classifier(num_classes)  # timm keeps the trained one then
        if stem == "small" or (stem == "auto" and stems.are_small(image_size)):
            _make_small(model, name, stem)
        freeze_parts(model, freeze, head)
        return model

    return build


# What timm changes about an architecture where it is pretrained; without its weights, too.
_ONLY_PRETRAINED: Mapping[str, dict[str, Any]] = {"fbnetc_100": {"bn_eps": 1e-3}}


def _timms(name: str, image_size: tuple[int, int] | None, settings: Mapping[str, Any]) -> nn.Module:
    import timm

    try:
        return _built(lambda: timm.create_model(name, img_size=image_size, **settings))
    except TypeError as error:  # only models made for one size know the argument
        if "img_size" not in str(error):
            raise
        return _built(lambda: timm.create_model(name, **settings))


def _make_small(model: Any, name: str, stem: Stem) -> None:
    """Exchanges the stem, where timm says that there is one and that no size is built in."""
    config = model.pretrained_cfg
    found = stems.first_convolution(model)
    only = found is not None and config.get("first_conv") == found[0]
    if found is None or not only or config.get("fixed_input_size") or stems.cuts_patches(found[1]):
        if stem == "small":
            raise _cannot_be_small(name)
        return
    conv = found[1]
    if not stems.shrinks(conv):
        return
    stems.adapt(conv, conv.in_channels, small=True)
    if pooling := stems.first_pooling(model, of_stem=True):
        model.set_submodule(pooling, nn.Identity())


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
