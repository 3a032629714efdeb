"""Training states and weights on disk: never half written, never a pickle that runs code."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from samtune.files import parse_json, write_atomically

T = TypeVar("T")


def save_state(path: Path, state: Mapping[str, Any]) -> str:
    """Writes a training state for `load_state`; returns the file's sha256."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def load_state(path: Path, sha256: str) -> dict[str, Any] | None:
    """The state written by `save_state`, or None if the file is absent or anything else."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content).hexdigest() != sha256:
        return None
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # a pickle that would run code: not `save_state`'s
        return None
    assert isinstance(state, dict)
    return state


def save_weights(path: Path, weights: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    """Writes weights as safetensors, with `about` as JSON in the header; returns the sha256."""
    # Cloned, since safetensors refuses tied weights that share memory.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    content = to_safetensors(tensors, {"samtune": json.dumps(about)})
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def load_weights(
    path: Path, shape: type[T], sha256: str | None = None
) -> tuple[dict[str, Tensor], T]:
    """What `save_weights` wrote: the weights, and what was said about them as a `shape`.

    Args:
        sha256: the digest that the file must have.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else.
    """
    # Read as a whole: a file that is mapped, and cut meanwhile, ends the process by SIGBUS.
    content = path.read_bytes()
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError("it is not what was written")
    try:
        weights = from_safetensors(content)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    length = int.from_bytes(content[:8], "little")
    about = json.loads(content[8 : 8 + length]).get("__metadata__", {}).get("samtune", "{}")
    return weights, parse_json(about.encode(), shape)


def load_into(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Loads weights that were kept as plain tensors.

    A state dict also carries the version of each module's layout, which safetensors drops and some
    models (MNASNet) insist on: these weights have the layout of the model they are loaded into.
    """
    state = OrderedDict(weights)
    # torch looks for this attribute on the mapping; its type has none.
    state._metadata = getattr(model.state_dict(), "_metadata", {})  # type: ignore[attr-defined]
    model.load_state_dict(state)
