"""Every study file that comes with samtune is valid, and its models run on its images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from samtune.config.study_file import read_study, to_yaml
from samtune.data.splits import DataSplits, Images
from samtune.preflight import preview

FILES = sorted((Path(__file__).parents[1] / "search_spaces").glob("*.yaml"))
SIZES = {"cifar10": (3, 32, 10), "cifar100": (3, 32, 100), "mnist": (1, 28, 10)}
BUNDLED = ("digits", "digits_segmentation")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_study_file_is_valid_and_named_like_its_file(path):
    config = read_study(path)
    assert config.name == path.stem
    for name in config.search_space:
        assert config.active(name, {}) or config.search_space[name][0].when


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_study_file_comes_back_from_the_folders_copy(path, tmp_path):
    config = read_study(path)
    copy = tmp_path / "study.yaml"
    copy.write_text(to_yaml(config))
    assert read_study(copy) == config


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.stem not in ("torchvision_image_folder", "unet_carvana")],
    ids=lambda path: path.stem,
)
def test_every_model_of_a_study_runs_on_its_images(path, tmp_path, monkeypatch):
    config = read_study(path)
    dataset = config.trial.dataset.name
    if dataset not in BUNDLED:
        channels, side, classes = SIZES[dataset]
        images = Images(torch.zeros(4, side, side, channels).byte(), torch.zeros(4).long())
        splits = DataSplits(
            task="classification",
            num_classes=classes,
            train=images,
            val=images,
            open_test=lambda: images,
            mean=(0.5,) * channels,
            std=(0.5,) * channels,
        )
        monkeypatch.setattr("samtune.preflight.open_dataset", lambda *_, **__: splits)
    found = preview(config, tmp_path)
    assert found.corners[0].parameters <= found.corners[-1].parameters
