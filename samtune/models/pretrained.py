"""Weights that others have trained: where they come from, and how they are laid into a model."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samtune.errors import SamtuneError
from samtune.models.stems import fitted

TIMEOUT_S = 10.0  # for a server to answer, not for a download
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # as timm looks for them

_architecture_alone: ContextVar[bool] = ContextVar("architecture_alone", default=False)


@contextmanager
def architecture_alone() -> Iterator[None]:
    """Within, models are built without their pretrained weights: others are loaded right after.

    Nothing is fetched or read; all else about the models is as with them.
    """
    token = _architecture_alone.set(True)
    try:
        yield
    finally:
        _architecture_alone.reset(token)


def weights_wanted() -> bool:
    """Whether a pretrained model that is built now gets its weights; on a meta device none do."""
    return not _architecture_alone.get() and torch.get_default_device().type != "meta"


def torchvision_weights(name: str, weights: Any) -> dict[str, Tensor]:
    """The state dict that torchvision has for a model, out of torch hub's cache or the network.

    Args:
        name: the model's, for the message.
        weights: a member of torchvision's `WeightsEnum`.

    Raises:
        SamtuneError: it cannot be had.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    with _explained(f"torchvision/{name}", weights.url, path), _timeout():
        state: dict[str, Tensor] = weights.get_state_dict(
            progress=sys.stderr.isatty(), check_hash=True, map_location="cpu", weights_only=True
        )
        for key in list(state):  # DenseNet's were named when dots were still allowed in names
            if key != (new := re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", key)):
                state[new] = state.pop(key)
    return state


def load_pretrained(
    model: nn.Module, state: dict[str, Tensor], *, first: str, fresh: Collection[str]
) -> None:
    """Loads all of a state dict but what is `fresh` in the model and keeps its own weights.

    Args:
        first: path of the first convolution, whose kernels are fitted to the images' channels.
        fresh: names of parameters.

    Raises:
        ValueError: the weights are those of another model.
    """
    own = model.state_dict()
    for key in [key for key in state if key in fresh or key not in own]:
        del state[key]
    kernels = f"{first}.weight"
    if kernels in state:
        state[kernels] = fitted(state[kernels], own[kernels].shape[1])
    try:
        # In place above, since layouts' versions hang on the state dict itself.
        missing = model.load_state_dict(state, strict=False).missing_keys
    except RuntimeError as error:
        raise ValueError(f"the pretrained weights do not fit: {_in_short(error)}") from error
    if lacking := [name for name in missing if name not in fresh]:
        raise ValueError(f"the pretrained weights lack {len(lacking)} tensors, as {lacking[0]}")


def with_timms_weights(name: str, create: Callable[..., nn.Module]) -> nn.Module:
    """What `create` makes with timm's weights of a model, from the cache or the network.

    Args:
        create: `timm.create_model` but for what is passed here.

    Raises:
        SamtuneError: they cannot be had.
    """
    import timm

    config: Any = timm.models.get_pretrained_cfg(name)
    hub_id = config.hf_hub_id
    source = f"https://huggingface.co/{hub_id}" if hub_id else config.url
    if not hub_id:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        with _explained(f"timm/{name}", source, folder), _timeout():
            return create(pretrained=True)
    from huggingface_hub import constants, get_session

    with _explained(f"timm/{name}", source, Path(constants.HF_HUB_CACHE)):
        file = None if config.custom_load else _cached(hub_id, config.hf_hub_filename)
        if file:  # asking the hub whether there is a newer one takes its time without a network
            return create(pretrained=True, pretrained_cfg_overlay={"file": file})
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)  # else the hub tries for minutes
        return create(pretrained=True)


def _cached(hub_id: str, filename: str | None) -> str | None:
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = hub_id.partition("@")
    for candidate in (filename,) if filename else HUB_FILES:
        found = try_to_load_from_cache(repository, candidate, revision=revision or None)
        if isinstance(found, str):
            return found
    return None


def head_of(make: Callable[[int], nn.Module], num_classes: int) -> frozenset[str]:
    """The names of the parameters that depend on the number of classes, in what `make` gives."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        shapes, others = (
            {name: p.shape for name, p in make(classes).named_parameters()}
            for classes in (num_classes, num_classes + 1)
        )
    return frozenset(name for name, shape in shapes.items() if others.get(name) != shape)


@contextmanager
def _explained(name: str, source: str, where: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # libraries of three kinds of network: anything can come
        raise SamtuneError(
            f"{name}: its pretrained weights cannot be loaded: {_in_short(error)}. They come from "
            f"{source} and are kept in {where}; without a network, copy them there from a machine "
            "that has one, or set pretrained: false."
        ) from error


@contextmanager
def _timeout() -> Iterator[None]:
    # Torch's hub sets none of its own, and a silent server would be waited for without end.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _in_short(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(".")[:200]
    return text or type(error).__name__
