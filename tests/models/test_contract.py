"""What every registered model must do; the libraries stand for themselves with some of theirs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from samtune.export.formats import load_exported
from samtune.models import build_model
from samtune.registry import MODELS
from samtune.sam import SAM, frozen_batchnorm_stats
from samtune.tasks import build_task
from tests.export.written import said, write
from tests.models.small import SMALL, own_models

CLASSES = 3
SIDES = {"wrn_40_4": 8}  # the largest of our own by far; its layers take any size
TORCHVISION = [
    f"torchvision/{name}" for name in ("mnasnet0_5", "mobilenet_v3_small", "squeezenet1_1")
]
SLOW = [
    pytest.param(f"torchvision/{name}", marks=pytest.mark.slow)
    for name in (
        "densenet121",
        "efficientnet_b0",
        "googlenet",
        "mobilenet_v2",
        "regnet_y_400mf",
        "resnet18",  # `test_freeze.py` trains it
        "shufflenet_v2_x0_5",
    )
]
TIMM = [f"timm/{name}" for name in ("mobilenetv3_small_050", "convnext_atto")]
EVERY = [*own_models(), *TORCHVISION, *SLOW, *TIMM]


@pytest.fixture(autouse=True)
def _one_thread_and_one_seed():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def made(name):
    entry, side = MODELS[name], SIDES.get(name, 32)
    model = build_model(
        name, in_channels=1, num_classes=CLASSES, image_size=(side, side), **SMALL.get(name, {})
    )
    task = build_task(entry.task, num_classes=CLASSES)
    count = 4 if "/" in name or name == "wrn_40_4" else 6
    inputs = torch.randn(count, 1, side, side)
    shape = (count, side, side) if entry.task == "segmentation" else (count,)
    return model, task, inputs, torch.randint(0, CLASSES, shape)


def statistics(model):
    return [
        b.clone()
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
        for b in m.buffers()
    ]


@pytest.mark.parametrize("name", EVERY)
def test_a_model_trains_with_sam_and_comes_back_from_its_state(name):
    model, task, inputs, targets = made(name)
    optimizer = SAM(model.parameters(), torch.optim.Adam, rho=0.01, lr=1e-3)

    def loss():
        return task.loss(task.forward(model, inputs, targets), inputs, targets)

    model.train()
    first = loss()
    assert first.isfinite()
    first.backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert missing == []
    before = statistics(model)
    with optimizer.at_worst_neighbor(), frozen_batchnorm_stats(model):
        loss().backward()
    assert all(torch.equal(a, b) for a, b in zip(before, statistics(model), strict=True))
    optimizer.descend()
    optimizer.zero_grad()

    values = []
    for _ in range(5):
        value = loss()
        value.backward()
        with optimizer.at_worst_neighbor(), frozen_batchnorm_stats(model):
            loss().backward()
        optimizer.descend()
        optimizer.zero_grad()
        values.append(value.item())
    assert values[-1] < first.item()

    twin = made(name)[0]
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        predicted = task.predict(model.eval()(inputs))
        assert torch.equal(task.predict(twin.eval()(inputs)), predicted)
    assert predicted.shape == targets.shape


@pytest.mark.parametrize("format", ["pt", "safetensors"])
@pytest.mark.parametrize("name", EVERY)
def test_an_exported_model_predicts_the_same(name, format, tmp_path):
    model, task, inputs, _ = made(name)
    side = SIDES.get(name, 32)
    recipe = {"name": name, "in_channels": 1, "num_classes": CLASSES, "image_size": [side, side]}
    path = tmp_path / f"model.{format}"
    about = said({**recipe, **SMALL.get(name, {})}, size=(side, side), task=MODELS[name].task)
    write(path, model, about, format, CLASSES)
    with torch.no_grad():
        expected = task.predict(model.eval()(inputs))
        assert torch.equal(task.predict(load_exported(path).network(inputs)), expected)


@pytest.mark.parametrize("name", own_models())
def test_a_meter_yields_the_metrics_that_the_task_names(name):
    model, task, inputs, targets = made(name)
    meter = task.meter()
    with torch.no_grad():
        meter.update(model.eval()(inputs), inputs, targets)
    measured = meter.compute()
    assert set(measured) == set(task.metrics)
    assert all(isinstance(value, float) for value in measured.values())


@pytest.mark.parametrize("name", own_models())
def test_every_parameter_of_a_model_is_described(name):
    assert [p.name for p in MODELS[name].parameters if not p.description] == []
    assert MODELS[name].summary.endswith(".")
