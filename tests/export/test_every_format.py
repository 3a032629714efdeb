"""Every format gives what the network gives, on real images as people have them."""

from __future__ import annotations

import functools
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from samtune.data import DataSplits, Images, load_dataset
from samtune.errors import SamtuneError
from samtune.export.about import About
from samtune.export.base import ExportedModel
from samtune.export.evaluation import evaluate_split
from samtune.export.formats import FORMATS, load_exported
from samtune.models import build_model
from samtune.registry import MODELS
from tests.export.written import MEAN, STD, preprocessed, said, write
from tests.models.small import SMALL, own_models

COUNT = 64
BATCHES = (1, 2, 7)
TORCHVISION = "torchvision/squeezenet1_1"
ON_DIGITS = {"capsnet": {"kernel_size": 3}}
GRAPHS = ["onnx", "pt2", "mlflow"]
UNLIKE = [("capsnet", "onnx"), ("capsnet", "pt2")]  # two outputs, one of them for training alone


@functools.cache
def real(task: str) -> DataSplits:
    return load_dataset("digits_segmentation" if task == "segmentation" else "digits")


@functools.cache
def made(name: str) -> tuple[nn.Module, About, Tensor, Tensor]:
    """An untrained network, what is said of it, real images, and what it gives for them."""
    task = MODELS[name].task
    data = real("segmentation" if task == "segmentation" else "classification")
    assert isinstance(data.val, Images)
    images = data.val.images[:COUNT].permute(0, 3, 1, 2).contiguous()
    size = data.image_size
    torch.manual_seed(0)
    recipe: dict[str, Any] = {
        "name": name,
        "in_channels": 1,
        "num_classes": data.num_classes,
        "image_size": [*size],
        **SMALL.get(name, {}),
        **ON_DIGITS.get(name, {}),
    }
    network = build_model(**{**recipe, "image_size": size})
    if name == "capsnet":  # as it comes, its capsules are shorter than the tolerance
        network.get_submodule("router").weight.data.mul_(100)
    normalised = (images.double() / 255 - MEAN) / STD
    with torch.no_grad():
        network.train()(normalised.float())  # batch norm's statistics are then of these images
        outputs = network.eval()(normalised.float())
        expected = outputs if isinstance(outputs, Tensor) else outputs[0].norm(dim=-1)
    assert expected.std() > 1e-3  # another image gives something else
    return network, said(recipe, size=size, task=task or data.task), images, expected


def _cases() -> Iterator[Any]:
    """Every model in every format; tracing a graph takes seconds.

    `test_export.py` has a wide_resnet in each, and what is below a resnet.
    """
    for name in (*own_models(), TORCHVISION):
        for format in FORMATS:
            is_slow = format in GRAPHS and (name, format) not in UNLIKE
            yield pytest.param(name, format, marks=[pytest.mark.slow] if is_slow else [])


@pytest.mark.parametrize(("name", "format"), list(_cases()))
def test_every_format_gives_what_the_network_gives(tmp_path: Path, name: str, format: str) -> None:
    network, about, images, expected = made(name)
    path = write(tmp_path / f"model.{format}", network, about, format, about.num_classes)
    model = load_exported(path, format)
    assert model.about == about
    for kind in (images, images.float() / 255, images.double() / 255):
        for size in (*BATCHES, COUNT):
            with torch.no_grad():
                found = model(kind[-size:])
            torch.testing.assert_close(found, expected[-size:], atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A network in each format whose graph runs without samtune."""
    network, about, _, _ = made("resnet")
    folder = tmp_path_factory.mktemp("graphs")
    paths = {format: folder / f"model.{format}" for format in GRAPHS}
    for format, path in paths.items():
        write(path, network, about, format, about.num_classes)
    return paths


@pytest.mark.parametrize("format", FORMATS)
def test_images_that_were_normalised_or_go_to_255_are_refused(
    exported: dict[str, Path], tmp_path: Path, format: str
) -> None:
    """Both would be silently wrong, the first by what one had to do before."""
    network, about, images, _ = made("resnet")
    path = exported.get(format) or write(tmp_path / "m", network, about, format, about.num_classes)
    model = load_exported(path, format)
    wrong = [images.float(), (images / 255 - MEAN) / STD, images / 255 * float("nan")]
    for given in wrong:
        with pytest.raises(ValueError, match="must hold pixels from 0 to 1 and must not be norm"):
            model(given)
    with pytest.raises(ValueError, match="must be uint8 or floating-point numbers, got torch.int"):
        model(images.long())
    for shape in ((8, 8), (1, 8, 8), (1, 3, 8, 8)):
        with pytest.raises(ValueError, match=r"images must be \(B, 1, H, W\), got"):
            model(torch.zeros(shape))
    model(torch.full((1, 1, 8, 8), 1.2))  # resized with a filter that overshoots


def test_a_graph_without_samtune_refuses_what_it_would_get_wrong(
    exported: dict[str, Path],
) -> None:
    _, _, images, expected = made("resnet")
    graph = torch.export.load(exported["pt2"]).module()
    torch.testing.assert_close(graph(images / 255), expected, atol=1e-4, rtol=0)
    with pytest.raises(RuntimeError, match="dtype"):
        graph(images)
    with pytest.raises(RuntimeError, match="pixels from 0 to 1"):
        graph(images.float())

    import onnxruntime

    session = onnxruntime.InferenceSession(exported["onnx"])
    (found,) = session.run(None, {"images": (images / 255).numpy()})
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    with pytest.raises(Exception, match="expected: \\(tensor\\(float\\)\\)"):
        session.run(None, {"images": images.numpy()})


@pytest.fixture(scope="module")
def server(exported: dict[str, Path]) -> Iterator[str]:
    """What `mlflow models serve` runs, in this process."""
    import mlflow.pyfunc
    import uvicorn
    from mlflow.pyfunc import scoring_server

    app = scoring_server.init(mlflow.pyfunc.load_model(str(exported["mlflow"])))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/invocations"
    server.should_exit = True
    thread.join()


def _post(url: str, images: Tensor) -> Any:
    body = json.dumps({"inputs": images.tolist()}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_a_served_model_answers_over_http(server: str) -> None:
    _, _, images, expected = made("resnet")
    for size in (1, 7):
        found = torch.tensor(_post(server, images[:size] / 255)["predictions"])
        torch.testing.assert_close(found, expected[:size], atol=1e-4, rtol=0)
    with pytest.raises(urllib.error.HTTPError) as refused:
        _post(server, images[:1])
    assert b"pixels from 0 to 1" in refused.value.read()


@pytest.mark.parametrize("format", GRAPHS)
def test_a_model_that_fixes_the_size_of_its_batches_is_no_graph(
    tmp_path: Path, format: str
) -> None:
    class Fixed(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.reshape(len(images), -1)[:, :10]  # len is a number, once and for all

    with pytest.raises(SamtuneError, match="model resnet does not become a graph of torch.export"):
        write(tmp_path / "model", Fixed(), made("resnet")[1], format, 10)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("format", GRAPHS)
@pytest.mark.parametrize("content", [b"", b"nothing of the kind"])
def test_another_file_is_refused_in_a_sentence(tmp_path: Path, format: str, content: bytes) -> None:
    path = file = tmp_path / f"other.{format}"
    if format == "mlflow":
        path.mkdir()
        file = path / "MLmodel"
    file.write_bytes(content)
    with pytest.raises(SamtuneError, match=f"other.{format} is no .* of `samtune export`"):
        load_exported(path, format)


def test_the_metrics_of_a_file_are_those_of_the_network_on_normalised_images() -> None:
    network, about, _, _ = made("resnet")
    data = real("classification")
    assert isinstance(data.val, Images)
    normalised = (data.val.images.permute(0, 3, 1, 2).double() / 255 - MEAN) / STD
    with torch.no_grad():
        logits = network(normalised.float())
    accuracy = (logits.argmax(1) == data.val.targets).float().mean().item()
    loss = nn.functional.cross_entropy(logits, data.val.targets).item()

    model = ExportedModel(preprocessed(network, about, 10), replace(about, classes=[*data.classes]))
    found = evaluate_split(model)
    assert found.images == 297
    assert found.metrics["accuracy"] == pytest.approx(accuracy)
    assert found.metrics["loss"] == pytest.approx(loss, abs=1e-5)
