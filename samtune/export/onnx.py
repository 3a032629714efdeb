"""The format `onnx`: a graph for onnxruntime and whatever else reads ONNX."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from samtune.errors import SamtuneError
from samtune.export.about import KEY, About, parse_about
from samtune.export.base import ExportedModel, Format, Predictor, in_short
from samtune.export.preprocessing import Preprocessed
from samtune.export.pt2 import traced
from samtune.files import write_atomically

INPUT, OUTPUT = "images", "scores"
MOST_BYTES = 2**31
"""What protobuf can hold in one message, hence one file."""


def write(path: Path, model: Preprocessed, about: About, _: Tensor) -> None:
    """One file without side files: `images` to `scores`, the size of the batch left open.

    What is said of the model is under `samtune` in its metadata. ONNX cannot raise: wrong pixels
    give wrong scores.
    """
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    if size > 0.9 * MOST_BYTES:
        raise SamtuneError(
            f"format onnx holds up to 2 GiB in one file, and this model has {size / 2**30:.1f}: "
            "take pt2, pt or safetensors"
        )
    program = traced(model, about)
    example = torch.zeros(2, about.input.channels, *about.input.size)
    try:
        with _quietly():
            made = torch.onnx.export(
                program,
                (example,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        assert made is not None
        made.model.metadata_props[KEY] = about.as_json()
        content = made.model_proto.SerializeToString()
    except Exception as error:  # an operator without ONNX, or any part of the translation
        raise SamtuneError(
            f"model {about.model['name']} cannot be written as ONNX: {in_short(error)} Take "
            "format pt2, pt or safetensors."
        ) from error
    write_atomically(path, content)


def read(path: Path) -> ExportedModel:
    """See `Format.read`; it runs on the CPU, by onnxruntime."""
    import onnxruntime

    try:
        # As bytes: what a file of another origin says of side files leads nowhere then.
        session = onnxruntime.InferenceSession(
            path.read_bytes(), providers=["CPUExecutionProvider"]
        )
        found = json.loads(session.get_modelmeta().custom_metadata_map.get(KEY, "null"))
    except Exception as error:
        raise SamtuneError(
            f"{path} is no ONNX file of `samtune export`, or is damaged: {in_short(error)}"
        ) from error
    about = parse_about(path, found)
    return ExportedModel(Predictor(lambda images: session.run([OUTPUT], {INPUT: images})[0]), about)


ONNX = Format(
    "onnx",
    (".onnx",),
    write,
    read,
    load='onnxruntime.InferenceSession("{path}").run(None, {{"images": images}})',
    needs=("onnx", "onnxscript", "onnxruntime"),
    extra="onnx",
)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps the exporter's advice to its own developers off the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
