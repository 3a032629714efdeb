"""The format `mlflow`: a folder for `mlflow models serve`, which needs no samtune.

What `save_model` writes is also the champion in MLflow's registry: this module is the flavor that
`mlflow.models.Model.log` takes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from samtune.errors import SamtuneError
from samtune.export.about import KEY, About, parse_about
from samtune.export.base import ExportedModel, Format, Predictor, in_short
from samtune.export.preprocessing import Preprocessed
from samtune.export.pt2 import traced

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

MODEL_FILE = "MLmodel"


def save_model(
    path: str | Path,
    *,
    model: Preprocessed,
    about: About,
    example: Tensor,
    mlflow_model: Model | None = None,
) -> None:
    """Writes a folder that `mlflow.pyfunc.load_model` and `mlflow models serve` take.

    Its graph is that of `pt2`: it takes float32 images (B, C, H, W) from 0 to 1, and raises where
    pixels are of another range. It runs on the CPU, wherever it is loaded.

    Args:
        example: two images at least, or the size of the batch would be fixed at one.
        mlflow_model: what MLflow has begun to write down of it.

    Raises:
        SamtuneError: the model does not become a graph.
    """
    import mlflow.pytorch
    from mlflow.models import Model

    written = mlflow_model or Model()
    mlflow.pytorch.save_model(
        # MLflow traces it anew, and would let the model fix the size of the batch.
        traced(model, about).module(),
        str(path),
        mlflow_model=written,
        signature=_signature(model, example),
        input_example=example[:2].contiguous().numpy(),
        pip_requirements=[f"{name}=={version(name)}" for name in ("torch", "numpy")],
        metadata={KEY: about.as_json()},
        serialization_format="pt2",  # no pickle
    )
    # MLflow takes a GPU where it finds one, and then refuses weights that were exported on a CPU.
    written.flavors["python_function"]["config"] = {"device": "cpu"}
    written.save(str(Path(path) / MODEL_FILE))


def write(path: Path, model: Preprocessed, about: About, example: Tensor) -> None:
    """See `save_model`."""
    try:
        with _quietly():
            save_model(path, model=model, about=about, example=example)
    except SamtuneError:
        raise
    except Exception as error:  # the model's own code, torch's tracing, or MLflow
        raise SamtuneError(
            f"model {about.model['name']} cannot be written for MLflow: {in_short(error)} Take "
            "format pt or safetensors."
        ) from error


def read(path: Path) -> ExportedModel:
    """See `Format.read`. Such a folder is a program: read none that you would not run."""
    import mlflow.pyfunc

    try:
        with _quietly():
            loaded = mlflow.pyfunc.load_model(str(path))
        found = json.loads((loaded.metadata.metadata or {}).get(KEY, "null"))
    except Exception as error:
        raise SamtuneError(
            f"{path} is no MLflow model of `samtune export`, or is damaged: {in_short(error)}"
        ) from error
    return ExportedModel(Predictor(loaded.predict), parse_about(path, found))


MLFLOW = Format(
    "mlflow",
    (),
    write,
    read,
    load='mlflow.pyfunc.load_model("{path}").predict(images)',
    is_folder=True,
)


def _signature(model: Preprocessed, example: Tensor) -> ModelSignature:
    """Batches of any size: what is inferred from an example of equal sides may open those, too."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    with torch.no_grad():
        scores = model(example[:2])

    def spec(like: Tensor) -> Any:
        return Schema([TensorSpec(np.dtype(np.float32), (-1, *like.shape[1:]))])

    return ModelSignature(inputs=spec(example), outputs=spec(scores))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without MLflow's remarks, and without its leave to run pickles, whatever the environment."""
    logger, name = logging.getLogger("mlflow"), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"
    level, before = logger.level, os.environ.get(name)
    logger.setLevel(logging.ERROR)
    os.environ[name] = "false"
    try:
        yield
    finally:
        logger.setLevel(level)
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
