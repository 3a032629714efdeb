"""What every format of an exported model offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from samtune.errors import SamtuneError
from samtune.export.about import About
from samtune.export.preprocessing import Preprocessed, as_unit_floats


class ExportedModel(nn.Module):
    """A model from a file, ready for inference, whatever the file's format.

    Attributes:
        about: what the file says of it.
        inner: from float32 images (B, C, H, W) with pixels in [0, 1] to scores.
    """

    def __init__(self, inner: nn.Module, about: About) -> None:
        super().__init__()
        self.inner = inner
        self.about = about

    def forward(self, images: Tensor) -> Tensor:
        """A score for each class: logits (B, K), (B, K, H', W') for masks, lengths of capsules.

        Args:
            images: (B, C, H, W), uint8 from 0 to 255, or floating-point numbers from 0 to 1, not
                normalised.

        Raises:
            ValueError: they are something else.
        """
        scores: Tensor = self.inner(as_unit_floats(images, self.about.input.channels))
        return scores

    @property
    def network(self) -> nn.Module:
        """The network alone, as `samtune.models.build_model` makes it; it takes normalised images.

        Raises:
            AttributeError: the file holds a graph and no network.
        """
        if not isinstance(self.inner, Preprocessed):
            raise AttributeError("only pt and safetensors hold a network; this file holds a graph")
        return self.inner.network


def with_preprocessing(network: nn.Module, about: About) -> Preprocessed:
    """A network with the normalisation, and the scores, that are said of it."""
    return Preprocessed(network, about.build_task(), about.input.mean, about.input.std)


@dataclass(frozen=True)
class Format:
    """A kind of file, or of folder, that models go home in.

    Attributes:
        suffixes: what its files' names may end in.
        write: a model to a path where nothing is; some formats need two images for an example.
        read: what `write` wrote; raises `SamtuneError` for anything else.
        load: how to load it, `{path}` standing for the path.
        needs: modules that must be installed, with `extra` of samtune.
    """

    name: str
    suffixes: tuple[str, ...]
    write: Callable[[Path, Preprocessed, About, Tensor], None]
    read: Callable[[Path], ExportedModel]
    load: str
    needs: tuple[str, ...] = ()
    extra: str = ""
    is_folder: bool = False

    def check_installed(self) -> None:
        """Raises a `SamtuneError` that says what to install, where something is missing."""
        missing = [name for name in self.needs if find_spec(name) is None]
        if missing:
            raise SamtuneError(
                f"format {self.name} needs {', '.join(missing)}: "
                f"pip install 'samtune[{self.extra}]'"
            )


class Predictor(nn.Module):
    """A runtime that knows numpy alone, as a module.

    Args:
        predict: float32 images (B, C, H, W) to float32 scores.
    """

    def __init__(
        self, predict: Callable[[np.ndarray[tuple[int, ...], np.dtype[np.float32]]], object]
    ) -> None:
        super().__init__()
        self._predict = predict

    def forward(self, images: Tensor) -> Tensor:
        """The scores, on the CPU."""
        array = images.detach().cpu().contiguous().numpy()
        return torch.from_numpy(np.array(self._predict(array), dtype=np.float32))


def in_short(error: BaseException) -> str:
    """An error of a library in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
