"""What every registered model must do in every precision and both layouts of memory.

Each is named here, since `auto` would try only what this machine is fast at: bfloat16 and float16
run on every CPU, if slowly. torchvision and timm stand for themselves with a few small families.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from samtune.config.study_file import read_study
from samtune.config.trial import TrialConfig
from samtune.data import DataSplits, Images
from samtune.export.formats import load_exported
from samtune.registry import MODELS
from samtune.tasks import Task
from samtune.training import TrainingState, evaluate, sam_step, set_up, trial_task
from samtune.training.checkpoint import load_state, save_state
from samtune.training.precision import DTYPES, autocast
from tests.export.written import said, write
from tests.models.small import SMALL, own_models

CPU = torch.device("cpu")
CLASSES = 3
IMAGES = 2  # the fewest that batch norm can do with; float16 is slow on most CPUs
SIDES = {"capsnet": 20, "unet": 16}
SIDE, LIBRARY_SIDE = 8, 16
FAMILIES = [
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/squeezenet1_1",
    "timm/test_vit",
]
LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
PRECISIONS = ["fp32", "bf16", "fp16"]
MNIST = Path(__file__).parents[2] / "search_spaces" / "capsnet_mnist.yaml"


@dataclass
class Trained:
    """A model after two steps of SAM.

    Attributes:
        start: its weights before them.
        layers: in what each layer that multiplies computed in the first of them, by its name.
        losses: one a step.
        saved, digest: its state between the two.
    """

    config: TrialConfig
    data: DataSplits
    task: Task
    state: TrainingState
    start: list[Tensor]
    layers: dict[str, torch.dtype]
    losses: list[Tensor]
    saved: Path
    digest: str

    def outputs(self, model: nn.Module) -> list[Tensor]:
        """What a model says of the validation split, in the trial's precision and layout."""
        inputs, _ = next(iter(self.data.val_batches(IMAGES, CPU).in_order()))
        if self.config.training.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        else:
            inputs = inputs.contiguous()
        with torch.no_grad(), autocast(self.state.precision, CPU):
            found = model.eval()(inputs)
        return [found] if isinstance(found, Tensor) else list(found)


def splits(side: int, *, masks: bool) -> DataSplits:
    generator = torch.Generator().manual_seed(0)

    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(0, high, (IMAGES, *shape), dtype=torch.uint8, generator=generator)

    def part() -> Images:
        targets = draw(CLASSES, side, side) if masks else draw(CLASSES).long()
        return Images(draw(256, side, side, 1), targets)

    train, val = part(), part()
    return DataSplits(
        task="segmentation" if masks else "classification", num_classes=CLASSES,
        train=train, val=val, open_test=lambda: val, mean=(0.5,), std=(0.29,),
    )  # fmt: skip


def trained(
    model: dict[str, Any], side: int, precision: str, folder: Path, *, channels_last: bool
) -> Trained:
    config = TrialConfig.model_validate(
        {
            "model": model,
            "dataset": {"name": "digits"},
            "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9},
            "sam": {"rho": 0.05},
            "training": {
                "epochs": 2,
                "batch_size": IMAGES,
                "precision": precision,
                "channels_last": channels_last,
            },
        }
    )
    data = splits(side, masks=MODELS[config.model.name].task == "segmentation")
    torch.set_num_threads(1)
    state = set_up(config, data, CPU)
    state.loss_scale.scale = 2.0**8  # fp16 begins with 2^16 and skips steps until that fits
    start = [p.detach().clone() for p in state.model.parameters()]
    task, saved = trial_task(config, data), folder / "state.pt"
    with layers_watched(state.model) as layers:
        first = one_step(state, task, data)
    digest = save_state(saved, state.state_dict())
    losses = [first, one_step(state, task, data)]
    return Trained(config, data, task, state, start, layers, losses, saved, digest)


@contextmanager
def layers_watched(model: nn.Module) -> Iterator[dict[str, torch.dtype]]:
    """The type that each convolution and linear layer gives inside, by the layer's name."""
    found: dict[str, torch.dtype] = {}

    def watch(name: str, layer: nn.Module) -> RemovableHandle:
        def seen(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
            found[name] = output.dtype

        return layer.register_forward_hook(seen)

    layers = {n: m for n, m in model.named_modules() if isinstance(m, LAYERS)}
    handles = [watch(name, layer) for name, layer in layers.items()]
    yield found
    for handle in handles:
        handle.remove()


def one_step(state: TrainingState, task: Task, data: DataSplits) -> Tensor:
    """A step of SAM, always on the same batch."""
    inputs, targets = next(iter(data.train_batches(IMAGES, CPU).shuffled(0)))
    return sam_step(state, task, inputs, targets)


CASES = list(itertools.product([*own_models(), *FAMILIES], PRECISIONS, [True, False]))


def _is_default(name: str, precision: str, channels_last: bool) -> bool:
    """Every precision for all, and both layouts; for one model each with each."""
    return name == "resnet" or channels_last == (precision == "bf16")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            (name, precision, last),
            id=f"{name}-{precision}-{'channels_last' if last else 'contiguous'}",
            marks=[] if _is_default(name, precision, last) else [pytest.mark.slow],
        )
        for name, precision, last in CASES
    ],
)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    name, precision, channels_last = request.param
    if name.startswith("timm/") and find_spec("timm") is None:
        pytest.skip("timm is not installed")
    model, side = (
        {"name": name, **SMALL.get(name, {})},
        SIDES.get(name, LIBRARY_SIDE if "/" in name else SIDE),
    )
    folder = tmp_path_factory.mktemp("case")
    return trained(model, side, precision, folder, channels_last=channels_last)


def assert_steps_and_metrics_are_sound(made: Trained) -> None:
    assert made.state.precision == made.config.training.precision
    assert torch.stack(made.losses).isfinite().all()
    assert made.state.optimizer.skipped_steps == 0
    after = list(made.state.model.parameters())
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in after)
    assert any(not torch.equal(p, q) for p, q in zip(made.start, after, strict=True))
    batches = made.data.val_batches(IMAGES, CPU)
    measured = evaluate(made.state.model, made.task, batches, made.state.precision)
    assert measured.keys() == {f"val_{metric}" for metric in made.task.metrics}
    assert torch.tensor(list(measured.values())).isfinite().all(), measured


def test_two_steps_and_an_evaluation_give_finite_numbers(case: Trained) -> None:
    assert_steps_and_metrics_are_sound(case)


def test_every_layer_computes_in_the_precision_that_was_asked_for(case: Trained) -> None:
    expected = DTYPES.get(case.state.precision, torch.float32)
    weights = {n for n, m in case.state.model.named_modules() if isinstance(m, LAYERS)}
    assert case.layers == dict.fromkeys(weights, expected)


def test_a_restored_state_goes_on_like_the_one_that_was_saved(case: Trained) -> None:
    saved = load_state(case.saved, case.digest)
    assert saved is not None
    restored = set_up(case.config, case.data, CPU)
    restored.load_state_dict(saved)
    assert torch.equal(one_step(restored, case.task, case.data), case.losses[1])
    ours, theirs = case.state.model.state_dict(), restored.model.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_an_exported_model_says_the_same(case: Trained, tmp_path: Path) -> None:
    format = "pt" if case.config.training.channels_last else "safetensors"
    recipe = {
        "in_channels": 1,
        "num_classes": CLASSES,
        "image_size": list(case.data.image_size),
        "name": case.config.model.name,
        **case.config.model.params,
    }
    path = tmp_path / f"model.{format}"
    about = said(recipe, size=case.data.image_size, task=MODELS[case.config.model.name].task)
    write(path, case.state.model, about, format, CLASSES)
    ours, theirs = case.outputs(case.state.model), case.outputs(load_exported(path).network)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_papers_capsule_network_trains_on_images_of_mnists_size(
    precision: str, tmp_path: Path
) -> None:
    model = read_study(MNIST).trial.model
    made = trained(
        {"name": model.name, **model.params}, 28, precision, tmp_path, channels_last=True
    )
    assert_steps_and_metrics_are_sound(made)
