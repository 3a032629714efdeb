"""The format `pt2`: a graph of torch.export, which runs without samtune and without model code."""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from samtune.errors import SamtuneError
from samtune.export.about import KEY, About, parse_about
from samtune.export.base import ExportedModel, Format, in_short
from samtune.export.preprocessing import Preprocessed
from samtune.files import write_atomically

REMARKS = f"{KEY}.json"
"""The extra file that holds what is said of the model."""


def traced(model: Preprocessed, about: About) -> ExportedProgram:
    """The model as a graph for batches of any size.

    Raises:
        SamtuneError: the model's code cannot be traced, or fixes the size of the batch.
    """
    # Two images: torch.export takes a batch of one for a size that never changes.
    example = torch.zeros(2, about.input.channels, *about.input.size)
    try:
        with torch.no_grad():
            return torch.export.export(
                model.eval(), (example,), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False
            )
    except Exception as error:  # the model's own code, or any part of torch's tracing
        raise SamtuneError(
            f"model {about.model['name']} does not become a graph of torch.export: "
            f"{in_short(error)} Take format pt or safetensors."
        ) from error


def write(path: Path, model: Preprocessed, about: About, _: Tensor) -> None:
    """An archive of torch.export, with what is said of the model as `samtune.json` inside."""
    buffer = io.BytesIO()
    torch.export.save(traced(model, about), buffer, extra_files={REMARKS: about.as_json()})
    write_atomically(path, buffer.getvalue())


def read(path: Path) -> ExportedModel:
    """See `Format.read`. Such a file is a program: read none that you would not run."""
    remarks = {REMARKS: ""}
    try:
        with path.open("rb") as file:
            program = torch.export.load(io.BytesIO(file.read()), extra_files=remarks)
        found = json.loads(remarks[REMARKS] or "null")
        graph = program.module()
    except Exception as error:
        raise SamtuneError(
            f"{path} is no pt2 file of `samtune export`, or is damaged: {in_short(error)}"
        ) from error
    return ExportedModel(graph, parse_about(path, found))


PT2 = Format("pt2", (".pt2",), write, read, load='torch.export.load("{path}").module()')
