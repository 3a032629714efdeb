"""`samtune init` writes study files that are valid, for every model that is registered."""

from __future__ import annotations

from pathlib import Path

import pytest

from samtune.config.study_file import read_study
from samtune.preflight import warnings_of
from samtune.preflight.warnings import USUAL_RHO
from samtune.registry import MODELS
from tests.commands import samtune_here

DATA = {"segmentation": "digits_segmentation"}


@pytest.mark.parametrize("model", [*MODELS, "torchvision/resnet18"])
def test_the_file_is_a_valid_study_of_the_model(model: str, tmp_path: Path) -> None:
    dataset = DATA.get(MODELS[model].task or "", "digits")
    made = samtune_here("init", "a.yaml", "--model", model, "--dataset", dataset, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    config = read_study(tmp_path / "a.yaml")
    assert (config.trial.model.name, config.trial.dataset.name) == (model, dataset)
    assert config.name == "a"  # as its file is called
    assert "sam.rho" in config.search_space
    assert config.mode == "max"
    again = samtune_here("init", "a.yaml", "--model", model, cwd=tmp_path)
    assert again.returncode == 2
    assert "a.yaml exists" in again.stderr


@pytest.mark.parametrize("variant", USUAL_RHO)
def test_each_variant_is_searched_on_its_own_scale(variant: str, tmp_path: Path) -> None:
    assert samtune_here("init", "a.yaml", "--variant", variant, cwd=tmp_path).returncode == 0
    config = read_study(tmp_path / "a.yaml")
    assert config.trial.sam.variant == variant
    assert config.search_space["sam.rho"][0].examples == list(USUAL_RHO[variant])
    assert warnings_of(config) == []


def test_what_cannot_be_a_study_is_said_and_not_written(tmp_path: Path) -> None:
    missing = samtune_here("init", "a.yaml", "--dataset", "image_folder", cwd=tmp_path)
    assert missing.returncode == 2
    assert "trial.dataset.root" in missing.stderr
    misspelt = samtune_here("init", "a.yaml", "--model", "wide_resne", cwd=tmp_path)
    assert "Did you mean 'wide_resnet'?" in misspelt.stderr
    assert not (tmp_path / "a.yaml").exists()
    given = "dataset.root=photos", "training.epochs=7", "optimizer.lr=0.03"
    made = samtune_here("init", "a.yaml", "--dataset", "image_folder", *given, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    config = read_study(tmp_path / "a.yaml")
    assert config.trial.training.epochs == 7
    assert config.search_space["optimizer.lr"][0].examples == [0.01, 0.09]
