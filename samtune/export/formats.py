"""The files a model goes home in: how they are packed, and read back."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from samtune.errors import SamtuneError
from samtune.models import build_model
from samtune.training.checkpoint import load_into, load_weights

Format = Literal["pt", "safetensors"]
SUFFIXES: dict[str, Format] = {".pt": "pt", ".pth": "pt", ".safetensors": "safetensors"}


def format_of(path: Path, format: str | None = None) -> Format:
    """The named format, or the one that `path` ends in.

    Raises:
        SamtuneError: there is no such format.
    """
    known = get_args(Format)
    found = format or SUFFIXES.get(path.suffix)
    if found not in known:
        raise SamtuneError(
            f"which format is {format or path}? Name a file that ends in {', '.join(SUFFIXES)}, or "
            f"say which format it has: {' or '.join(known)}."
        )
    return cast(Format, found)


def packed(model: nn.Module, about: Mapping[str, Any], format: Format) -> bytes:
    """A model's weights as the content of a file, with what is said about them beside."""
    weights = model.state_dict()  # with the metadata that `load_state_dict` may ask for
    for name, tensor in weights.items():
        weights[name] = tensor.cpu().contiguous().clone()
    if format == "safetensors":
        return to_safetensors(weights, {"samtune": json.dumps(about)})
    buffer = io.BytesIO()
    torch.save({"weights": weights, **about}, buffer)
    return buffer.getvalue()


def load_exported(path: str | Path, format: Format | None = None) -> nn.Module:
    """The model in an exported file, ready for inference.

    Raises:
        SamtuneError: `samtune export` has not written this file.
    """
    path = Path(path)
    try:
        if format_of(path, format) == "pt":
            about = torch.load(path, map_location="cpu", weights_only=True)
            weights = about.get("weights") if isinstance(about, dict) else None
        else:
            weights, about = load_weights(path, dict[str, Any])
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise SamtuneError(f"{path} is no file of `samtune export`: {reason}") from error
    if weights is None or "model" not in about:
        raise SamtuneError(f"{path} is no file of `samtune export`: it does not name its model")
    recipe = about["model"]
    model = build_model(**{**recipe, "image_size": tuple(recipe["image_size"])})
    load_into(model, weights)
    return model.eval()
