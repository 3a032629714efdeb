"""The architectures, one a file; importing this package registers them all.

A model is a factory with keyword-only arguments that returns an `nn.Module`. It receives
`in_channels`, `num_classes` and `image_size` if it names them; all else is a parameter.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from samtune.models import (  # noqa: F401 - importing registers
    capsnet,
    libraries,
    resnet,
    unet,
    wide_resnet,
    wide_resnet_maxpool,
)
from samtune.models.pretrained import architecture_alone
from samtune.registry import MODELS
from samtune.secrets import from_environment

__all__ = ["architecture_alone", "build_model", "fetch_pretrained", "model_names"]


def model_names() -> list[str]:
    """Every registered model."""
    return list(MODELS)


def build_model(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int] | None = None,
    **params: Any,
) -> nn.Module:
    """A new model with its own initial weights, drawn from torch's global generator.

    Args:
        name: a registered name.
        num_classes: length of the output for one image (or one pixel).
        in_channels: 1 for grey, 3 for colour.
        image_size: height and width; only models whose weights depend on it need it.
        params: the model's own parameters, as `samtune models NAME` lists them.

    Raises:
        UnknownNameError: no such model.
        ValueError: the architecture cannot be built from these values.
        SamtuneError: its pretrained weights cannot be had.
    """
    entry = MODELS[name]
    if image_size is None and entry.requires("image_size"):
        raise ValueError(f"model {name!r} needs the images' size: image_size=(height, width)")
    provided = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    wanted = {key: value for key, value in provided.items() if entry.accepts(key)}
    with from_environment(params) as resolved:
        model = entry.factory(**wanted, **resolved)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model {name!r}: its factory returned {type(model).__name__}, no Module")
    return model


def fetch_pretrained(name: str, **params: Any) -> None:
    """Loads a library model's pretrained weights once, if its parameters ask for any.

    They are in the library's cache then, or it is said once why they are not, before every trial
    asks for them.

    Raises:
        SamtuneError: they cannot be had.
    """
    if params.get("pretrained") and name.partition("/")[0] in MODELS.families:
        build_model(name, in_channels=3, num_classes=2, **params)
