"""The formats that models go home in, by name; a new one is one file and one name here."""

from __future__ import annotations

from pathlib import Path

from samtune.errors import SamtuneError
from samtune.export.base import ExportedModel, Format
from samtune.export.mlflow import MLFLOW, MODEL_FILE
from samtune.export.onnx import ONNX
from samtune.export.pt2 import PT2
from samtune.export.weights import PT, SAFETENSORS

FORMATS: dict[str, Format] = {f.name: f for f in (PT, SAFETENSORS, ONNX, PT2, MLFLOW)}
SUFFIXES: dict[str, Format] = {suffix: f for f in FORMATS.values() for suffix in f.suffixes}


def format_of(path: Path, name: str | None = None) -> Format:
    """The named format, or the one that `path` ends in, or MLflow's where such a folder is.

    Raises:
        SamtuneError: there is no such format.
    """
    found = FORMATS.get(name) if name else SUFFIXES.get(path.suffix)
    if found is None and name is None and (path / MODEL_FILE).is_file():
        found = MLFLOW
    if found is None:
        raise SamtuneError(
            f"which format is {name or path}? Name a file that ends in {', '.join(SUFFIXES)}, or "
            f"say which format it has: {', '.join(FORMATS)}."
        )
    return found


def load_exported(path: str | Path, format: str | None = None) -> ExportedModel:
    """The model in an exported file or folder, ready for inference.

    It takes images (B, C, H, W) as they are, uint8 or floating-point numbers from 0 to 1, and
    gives a score for each class. Nothing in a file of pt, safetensors or onnx is executed; a pt2
    file and a folder of MLflow are programs.

    Raises:
        SamtuneError: `samtune export` has not written this file, or not for this installation: the
            module that registers a model of your own is to be imported first.
    """
    path = Path(path)
    kind = format_of(path, format)
    kind.check_installed()
    try:
        (path / MODEL_FILE if kind.is_folder else path).open("rb").close()
    except OSError as error:
        raise SamtuneError(f"{path} cannot be read: {error.strerror or error}") from error
    return kind.read(path)
