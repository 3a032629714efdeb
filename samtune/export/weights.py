"""The formats `pt` and `safetensors`: weights, and the recipe of the model that they belong to.

Nothing in such a file is executed when it is read.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from samtune.errors import SamtuneError
from samtune.export.about import KEY, About, parse_about
from samtune.export.base import ExportedModel, Format, in_short, with_preprocessing
from samtune.export.preprocessing import Preprocessed
from samtune.files import write_atomically
from samtune.models import architecture_alone, build_model
from samtune.training.checkpoint import load_into, load_weights

MOST_REGISTERED = 16  # for each tensor of the file; builders may make a model several times


def write_pt(path: Path, model: Preprocessed, about: About, _: Tensor) -> None:
    """A dictionary of `weights`, a plain state dict of the network, and what is said of them."""
    buffer = io.BytesIO()
    torch.save({"weights": _weights(model.network), **about.as_dict()}, buffer)
    write_atomically(path, buffer.getvalue())


def write_safetensors(path: Path, model: Preprocessed, about: About, _: Tensor) -> None:
    """The network's weights, with what is said of them in the header."""
    write_atomically(path, to_safetensors(_weights(model.network), {KEY: about.as_json()}))


def read_pt(path: Path) -> ExportedModel:
    """See `Format.read`."""
    with _foreign(path):
        content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        return _rebuilt(path, None, content)
    about = {key: value for key, value in content.items() if key != "weights"}
    return _rebuilt(path, content.get("weights"), about)


def read_safetensors(path: Path) -> ExportedModel:
    """See `Format.read`."""
    with _foreign(path):
        weights, about = load_weights(path, dict[str, Any])
    return _rebuilt(path, weights, about)


PT = Format(
    "pt",
    (".pt", ".pth"),
    write_pt,
    read_pt,
    load='samtune.export.load_exported("{path}")',
)
SAFETENSORS = Format(
    "safetensors",
    (".safetensors",),
    write_safetensors,
    read_safetensors,
    load='samtune.export.load_exported("{path}")',
)


def _weights(network: nn.Module) -> dict[str, Tensor]:
    weights = network.state_dict()  # with the metadata that `load_state_dict` may ask for
    for name, tensor in weights.items():
        weights[name] = tensor.cpu().contiguous().clone()
    return weights


@contextmanager
def _foreign(path: Path) -> Iterator[None]:
    """Torch and pickle raise some ten kinds for bytes of other origins: all become a sentence."""
    try:
        yield
    except Exception as error:
        raise SamtuneError(
            f"{path} is no file of `samtune export`, or is damaged: {in_short(error)}"
        ) from error


def _rebuilt(path: Path, weights: Any, found: Any) -> ExportedModel:
    if not isinstance(weights, Mapping):
        raise SamtuneError(f"{path} is no file of `samtune export`: it does not name its model")
    about = parse_about(path, found)
    try:
        with architecture_alone():
            with torch.device("meta"), _few_parameters(len(weights)):
                _check_shapes(_built(about.model), weights)
            network = _built(about.model)
        load_into(network, weights)
        if about.model["in_channels"] != about.input.channels:
            raise ValueError("its recipe is of other channels than its images")
        model = with_preprocessing(network, about)
    except SamtuneError as error:
        raise SamtuneError(f"{path} cannot be loaded: {error}") from error
    except Exception as error:  # a recipe of another origin may say anything
        raise SamtuneError(
            f"{path} is no file of `samtune export`, or one of another version: its model "
            f"cannot be built from its recipe: {in_short(error)}"
        ) from error
    return ExportedModel(model, about).eval()


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
