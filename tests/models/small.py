"""The models that come with samtune, small enough for contracts that run over all of them."""

from __future__ import annotations

from typing import Any

from samtune.models import model_names
from samtune.registry import MODELS

SMALL: dict[str, dict[str, Any]] = {
    "wide_resnet": {"depth": 10, "width_factor": 1},
    "wide_resnet_maxpool": {"width_factor": 1},
    "resnet": {"blocks": [1, 1], "channels": [8, 16]},
    "capsnet": {"channels": 8, "primary_capsules": 2, "decoder": [16]},
    "unet": {"base_channels": 4},
}
"""Settings by name; a model that is not named here is tried with its defaults."""


def own_models() -> list[str]:
    """Every registered model but those that tests register."""
    return [n for n in model_names() if MODELS[n].factory.__module__.startswith("samtune.")]
