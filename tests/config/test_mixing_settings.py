"""What a study file may say about mixup and CutMix, and for which models."""

from __future__ import annotations

from pathlib import Path

import pytest

from samtune.config.checked_trial import trial_with
from samtune.config.schema import StudyConfig
from samtune.config.study_file import read_study
from samtune.errors import StudyFileError

STUDY = """\
name: mixed
trial:
  model: {name: MODEL}
  dataset: {name: DATASET}
  optimizer: {name: sgd, lr: 0.1}
  training: {epochs: 2, ALPHAS}
"""
MODELS = {"wide_resnet": "digits", "capsnet": "digits", "unet": "digits_segmentation"}


def study(tmp_path: Path, model: str, alphas: str, more: str = "") -> StudyConfig:
    text = STUDY.replace("MODEL", model).replace("DATASET", MODELS[model])
    metric = "study: {metric: val_loss}\n"
    (tmp_path / "study.yaml").write_text(text.replace("ALPHAS", alphas) + metric + more)
    return read_study(tmp_path / "study.yaml")


def test_both_are_off_unless_they_are_set_and_can_be_searched(tmp_path: Path) -> None:
    space = "search_space: {training.mixup: {float: [0.0, 0.4]}, training.cutmix: {choice: [0, 1]}}"
    config = study(tmp_path, "wide_resnet", "batch_size: 8", space)
    assert (config.trial.training.mixup, config.trial.training.cutmix) == (0.0, 0.0)
    trial = trial_with(config, {"training.mixup": 0.3, "training.cutmix": 1})
    assert (trial.training.mixup, trial.training.cutmix) == (0.3, 1.0)


@pytest.mark.parametrize(
    ("model", "task"), [("capsnet", "capsule"), ("unet", "segmentation")]
)  # fmt: skip
@pytest.mark.parametrize("setting", ["mixup", "cutmix"])
def test_only_classification_can_mix_its_targets(
    tmp_path: Path, model: str, task: str, setting: str
) -> None:
    sentence = (
        f"line 6, trial.training.{setting}: must be 0 for {model}, got 0.2: only classification "
        f"has targets that can be mixed, and this model is for {task}."
    )
    with pytest.raises(StudyFileError) as raised:
        study(tmp_path, model, f"{setting}: 0.2")
    assert raised.value.problems == [sentence]
    study(tmp_path, model, f"{setting}: 0")


def test_a_search_space_that_allows_it_is_refused_as_well(tmp_path: Path) -> None:
    for space in (
        "search_space: {training.mixup: {float: [0.0, 0.4]}}",
        "search_space: {training.cutmix: {choice: [0.0, 0.4]}}",
    ):
        with pytest.raises(StudyFileError, match=r"allows 0.4: .*must be 0 for capsnet, got 0.4"):
            study(tmp_path, "capsnet", "batch_size: 8", space)
    space = "search_space: {model.name: {choice: [wide_resnet, capsnet]}}"
    with pytest.raises(StudyFileError, match="allows 'capsnet': .*must be 0 for capsnet"):
        study(tmp_path, "wide_resnet", "mixup: 0.4", space)


@pytest.mark.parametrize("value", ["-0.1", "101", ".nan", "true", "'0.2'"])
def test_an_alpha_is_a_number_from_0_to_100(tmp_path: Path, value: str) -> None:
    with pytest.raises(StudyFileError, match=r"trial\.training\.mixup: "):
        study(tmp_path, "wide_resnet", f"mixup: {value}")
