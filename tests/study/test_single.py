"""What `samtune train` does: one run without Ray, with images mixed or changed and without."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
import torch
from PIL import Image

from samtune.config.schema import StudyConfig
from samtune.config.study_file import check_study
from samtune.config.yaml_reader import parse_yaml
from samtune.data import load_dataset
from samtune.errors import SamtuneError
from samtune.registry import DATASETS, register_dataset
from samtune.study.single import train_single
from samtune.training.loop import train
from samtune.training.state import set_up

STUDY = """
name: one
trial:
  model: MODEL
  dataset: DATASET
  optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
  sam: {rho: 0.05}
  training: {epochs: 3, batch_size: 60, precision: fp32MORE}
study: {scheduler: none}
"""
SMALL = "{name: resnet, blocks: [1], channels: [4]}"
LEARNS = "{name: wide_resnet, depth: 10, width_factor: 1}"
CHANGED = "{name: digits, random_resized_crop: 0.6, color_jitter: 0.3, randaugment_ops: 1}"
Metrics = list[dict[str, float]]


def study(dataset: str = "{name: digits}", more: str = "", model: str = SMALL) -> StudyConfig:
    text = STUDY.replace("DATASET", dataset).replace("MORE", more).replace("MODEL", model)
    return check_study(parse_yaml(text, "one.yaml"), Path.cwd())


def trained(config: StudyConfig, storage: Path, epochs: int | None = None) -> Metrics:
    """The metrics of each epoch; left after so many epochs, as if killed."""
    progress = train_single(config, "one", storage)
    found = [p.metrics for p, _ in zip(progress, range(epochs or 99), strict=False) if p.metrics]
    progress.close()  # type: ignore[attr-defined]
    return found


def test_mixup_is_seen_in_the_training_loss_and_learns_and_off_is_the_loop_without_it(
    tmp_path: Path,
) -> None:
    off = trained(study(more=", mixup: 0, cutmix: 0", model=LEARNS), tmp_path / "off")
    mixed = trained(study(more=", mixup: 0.4", model=LEARNS), tmp_path / "mixed")
    smoothed = ", mixup: 0.2, cutmix: 1.0, label_smoothing: 0.1"
    both = trained(study(more=smoothed, model=LEARNS), tmp_path / "both")

    config, digits = study(model=LEARNS).trial, load_dataset("digits")
    state = set_up(config, digits, torch.device("cpu"))
    assert off == [r.metrics for r in train(state, config, digits, torch.device("cpu"))]
    # Of two digits in one image neither can be certain: a share x of one and 1 - x of the other
    # costs at least their entropy.
    assert off[-1]["train_loss"] < 0.15
    assert mixed[-1]["train_loss"] > 0.4
    for found in (mixed, both):
        assert found[-1]["val_accuracy"] > 0.9
        assert found[-1]["val_loss"] < found[-1]["train_loss"]  # whose digits are whole


@pytest.mark.parametrize(
    ("dataset", "more"), [("{name: digits}", ", mixup: 0.4, cutmix: 1.0"), (CHANGED, "")]
)
def test_resuming_shows_what_would_have_been_seen(tmp_path: Path, dataset: str, more: str) -> None:
    config = study(dataset, more)
    whole = trained(config, tmp_path / "whole")
    assert len(whole) == 3
    assert whole[0]["train_loss"] != trained(study(), tmp_path / "plain", 1)[0]["train_loss"]
    trained(config, tmp_path / "parts", epochs=1)
    assert trained(config, tmp_path / "parts") == whole


@pytest.mark.parametrize(
    ("kind", "sentence"), [("value", "3 images but 2 labels"), ("key", "KeyError: 'labels'")]
)
def test_a_data_set_that_cannot_be_loaded_is_a_sentence_and_leaves_no_folder(
    tmp_path: Path, kind: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))  # back as it was, afterwards

    @register_dataset("unreadable")
    def unreadable(*, kind: str) -> NoReturn:
        raise {"value": ValueError("3 images but\n2 labels"), "key": KeyError("labels")}[kind]

    config = study(f"{{name: unreadable, kind: {kind}}}")
    with pytest.raises(SamtuneError) as raised:
        trained(config, tmp_path)
    assert str(raised.value).startswith(f"dataset unreadable: {sentence}")
    assert not (tmp_path / "one").exists()


def test_a_finished_run_is_told_again_without_its_data_set(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for i in range(40):
        folder = images / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 6 * i).save(folder / f"{i}.png")
    config = study(f"{{name: image_folder, root: {images}, image_size: [8, 8]}}")
    first = trained(config, tmp_path)
    images.rename(tmp_path / "elsewhere")
    assert trained(config, tmp_path) == first
    with pytest.raises(SamtuneError, match="images does not exist"):
        trained(config, tmp_path / "another")
