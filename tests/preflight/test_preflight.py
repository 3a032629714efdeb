"""Mistakes between a model and a dataset that are found before any trial starts."""

from __future__ import annotations

import pytest
import torch

from samtune.config.study_file import read_study
from samtune.errors import SamtuneError
from samtune.preflight import preview
from samtune.registry import register_model

FILE = """
name: mistaken
trial:
  model: {model}
  dataset: {dataset}
  optimizer: {{name: sgd, lr: 0.1}}
  training: {{epochs: 1, batch_size: {batch_size}, label_smoothing: {smoothing}}}
study: {{metric: {metric}, scheduler: none}}
"""


def check(tmp_path, *, model, dataset="{name: digits}", metric="val_accuracy", **settings):
    path = tmp_path / "study.yaml"
    values = {"batch_size": 8, "smoothing": 0.0, **settings}
    path.write_text(FILE.format(model=model, dataset=dataset, metric=metric, **values))
    return preview(read_study(path), tmp_path)


SMALL_CAPSNET = "{name: capsnet, channels: 4, primary_capsules: 1, kernel_size: 3, decoder: [4]}"


def test_a_capsule_model_trains_on_a_classification_dataset(tmp_path):
    check(tmp_path, model=SMALL_CAPSNET)


@pytest.mark.parametrize(
    ("model", "dataset", "metric", "message"),
    [
        ("{name: unet}", "{name: digits}", "val_dice", "unet is for segmentation, but dataset"),
        ("{name: capsnet}", "{name: digits}", "val_accuracy", "kernel_size 9 is too large"),
        (
            "{name: torchvision/maxvit_t}",
            "{name: random, images: 8, image_size: [40, 40]}",
            "val_accuracy",
            "does not work on 40x40 images with 3 channels",
        ),
        (
            "{name: unet}",
            "{name: digits_segmentation}",
            "val_accuracy",
            "no metric named 'val_accuracy'.*val_dice, val_iou, val_pixel_accuracy",
        ),
        (
            "{name: resnet}",
            "{name: random, images: 8, num_classes: 4}",
            "val_top5_accuracy",
            "resnet has no metric val_top5_accuracy with 4 classes",
        ),
        ("{name: resnet, blocks: 3}", "{name: digits}", "val_loss", "trial.model.blocks"),
        ("{name: resnet, blocks: [1, 0]}", "{name: digits}", "val_loss", "blocks.1: .*got 0"),
        ("{name: torchvision/resnt18}", "{name: digits}", "val_loss", "'torchvision/resnet18'"),
    ],
)
def test_what_does_not_go_together_is_said_at_once(tmp_path, model, dataset, metric, message):
    with pytest.raises(SamtuneError, match=message):
        check(tmp_path, model=model, dataset=dataset, metric=metric)


def test_batch_norm_over_a_single_value_is_found(tmp_path):
    with pytest.raises(SamtuneError, match=r"raise training\.batch_size"):
        check(tmp_path, model="{name: torchvision/resnet18, stem: imagenet}", batch_size=1)


@pytest.mark.parametrize(
    ("sam", "micro_batch", "works"),
    [
        ("{micro_ascent: 1}", "null", False),
        ("{micro_ascent: 7}", "null", False),  # 8 images: 7 and 1
        ("{micro_ascent: 6}", "5", False),  # 6 and 2 images: 5, 1 and 2
        ("{micro_ascent: 4}", "2", True),
        ("{}", "7", False),
    ],
)
def test_parts_of_a_batch_too_small_for_batch_norm_are_found(tmp_path, sam, micro_batch, works):
    model = f"{{name: torchvision/resnet18, stem: imagenet}}\n  sam: {sam}"
    smoothing = f"0.0, micro_batch_size: {micro_batch}"
    if works:
        check(tmp_path, model=model, smoothing=smoothing)
        return
    with pytest.raises(SamtuneError, match="one value a channel"):
        check(tmp_path, model=model, smoothing=smoothing)


def test_label_smoothing_of_capsules_is_found(tmp_path):
    with pytest.raises(SamtuneError, match="label_smoothing must be 0 for capsules"):
        check(tmp_path, model=SMALL_CAPSNET, smoothing=0.1)


@register_model("cpu_refuser")
class CpuRefuser(torch.nn.Linear):
    """Stands for kernels that there are for GPUs alone; torch's meta device takes it."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__(64, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.device.type == "cpu":
            raise NotImplementedError("no kernel for CPUs")
        return super().forward(images.flatten(1))


def _self_checks(tmp_path, model, dataset="{name: digits}"):
    path = tmp_path / "study.yaml"
    text = FILE.format(
        model=model, dataset=dataset, metric="val_accuracy", batch_size=8, smoothing=0.0
    )
    path.write_text(text)
    return preview(read_study(path), tmp_path, self_check=True).self_checks


def test_a_model_that_cannot_be_tried_here_stops_nothing(tmp_path):
    found = _self_checks(tmp_path, "{name: cpu_refuser}")
    assert found == {"cpu_refuser": "it raised NotImplementedError: no kernel for CPUs"}


def test_a_model_too_large_for_a_quick_try_is_left_out(tmp_path):
    model = "{name: wide_resnet, depth: 28, width_factor: 10}"
    dataset = "{name: random, images: 8, image_size: [64, 64]}"
    assert _self_checks(tmp_path, model, dataset) == {
        "wide_resnet": "it is too large for a quick try on a CPU"
    }


def test_the_smallest_of_each_searched_model_is_tried(tmp_path):
    path = tmp_path / "study.yaml"
    text = FILE.format(
        model="{name: resnet}",
        dataset="{name: digits}",
        metric="val_accuracy",
        batch_size=8,
        smoothing=0.0,
    )
    path.write_text(
        text + "search_space:\n  model.name: {choice: [resnet, torchvision/squeezenet1_1]}\n"
    )
    found = preview(read_study(path), tmp_path, self_check=True).self_checks
    assert set(found) == {"resnet", "torchvision/squeezenet1_1"}
    assert all(f.holds for findings in found.values() for f in findings)


def test_a_tuned_baseline_is_previewed_at_its_own_price(tmp_path):
    """13 trials of 2 epochs and 12 of the optimizer alone, whose epochs cost half the gradients."""
    text = FILE.format(
        model="{name: resnet, blocks: [1], channels: [4]}",
        dataset="{name: digits}",
        metric="val_accuracy",
        batch_size=400,
        smoothing=0.0,
    ).replace("epochs: 1", "epochs: 2")
    space = "search_space: {sam.rho: {float: [0.1, 1]}, optimizer.lr: {float: [0.1, 1]}}\n"
    path = tmp_path / "study.yaml"
    path.write_text(space + text.replace("study: {", "study: {trials: 12, baseline: tuned, "))
    found = preview(read_study(path), tmp_path)
    assert found.epochs == 2 * 13 + 2 * 12
    assert found.gradient_evaluations == (2 * 13 * 2 + 2 * 12) * 1200
    one = preview(read_study(path, ["study.baseline=true"]), tmp_path)
    assert found.disk_bytes * 13 == one.disk_bytes * 25
