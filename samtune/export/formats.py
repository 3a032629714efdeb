"""The files a model goes home in: how they are packed, and read back."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from samtune.errors import SamtuneError
from samtune.models import architecture_alone, build_model
from samtune.training.checkpoint import load_into, load_weights

Format = Literal["pt", "safetensors"]
MOST_REGISTERED = 16  # for each tensor of the file; builders may make a model several times
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
    """The model in an exported file, ready for inference; nothing in the file is executed.

    Raises:
        SamtuneError: `samtune export` has not written this file, or not for this installation: the
            module that registers a model of your own is to be imported first.
    """
    path = Path(path)
    weights, about = _read(path, format_of(path, format))
    recipe = about.get("model") if isinstance(about, Mapping) else None
    if not isinstance(weights, Mapping) or not isinstance(recipe, Mapping):
        raise SamtuneError(f"{path} is no file of `samtune export`: it does not name its model")
    try:
        with architecture_alone():
            with torch.device("meta"), _few_parameters(len(weights)):
                _check_shapes(_built(recipe), weights)
            model = _built(recipe)
        load_into(model, weights)
    except SamtuneError as error:
        raise SamtuneError(f"{path} cannot be loaded: {error}") from error
    except Exception as error:  # a recipe of another origin may say anything
        raise SamtuneError(
            f"{path} is no file of `samtune export`, or one of another version: its model "
            f"cannot be built from its recipe: {_in_short(error)}"
        ) from error
    return model.eval()


def _read(path: Path, format: Format) -> tuple[Any, Any]:
    """The weights, and all that is said about them."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise SamtuneError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        if format == "safetensors":
            return load_weights(path, dict[str, Any])
        about = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise some ten kinds for bytes of other origins
        raise SamtuneError(
            f"{path} is no file of `samtune export`, or is damaged: {_in_short(error)}"
        ) from error
    return (about.get("weights"), about) if isinstance(about, dict) else (None, about)


def _built(recipe: Mapping[str, Any]) -> nn.Module:
    return build_model(**{**recipe, "image_size": tuple(recipe["image_size"])})


def _check_shapes(model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Compares before a real model takes memory."""
    for name, own in model.state_dict().items():
        found = weights.get(name)
        if isinstance(found, Tensor) and not is_lazy(own) and found.shape != own.shape:
            raise ValueError(f"{name} is {tuple(found.shape)}, its model's {tuple(own.shape)}")


@contextmanager
def _few_parameters(tensors: int) -> Iterator[None]:
    """Stops the building of a model that has far more parameters than the file has tensors."""
    left = MOST_REGISTERED * (tensors + 1)

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"its recipe makes more than the file's {tensors} tensors")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
