"""What a study file may say about SAM, and what it is warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from samtune.config.checked_trial import trial_with
from samtune.config.schema import StudyConfig
from samtune.config.study_file import read_study, to_yaml
from samtune.config.trial import SamConfig, TrialConfig
from samtune.errors import StudyFileError
from samtune.preflight import warnings_of

STUDY = """
name: rhos
trial:
  model: {name: wide_resnet, depth: 10, width_factor: 1}
  dataset: {name: digits}
  optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
  training: {epochs: 2}
search_space:
"""


def study(tmp_path: Path, space: str, *overrides: str) -> StudyConfig:
    (tmp_path / "study.yaml").write_text(STUDY + space)
    return read_study(tmp_path / "study.yaml", overrides)


def test_every_setting_of_sam_can_be_searched(tmp_path: Path) -> None:
    config = study(
        tmp_path,
        """
  sam.variant: {choice: [sam, asam, asam_eta, sam_on, msam, fsam]}
  sam.rho:
    - {float: [0.01, 1.0], log: true, when: {sam.variant: [sam, fsam]}}
    - {float: [0.1, 10.0], log: true, when: {sam.variant: [asam, asam_eta, msam, sam_on]}}
  sam.every: {int: [1, 5]}
  sam.start_fraction: {float: [0.0, 0.9]}
  sam.ascent_fraction: {choice: [0.25, 0.5, 1.0]}
  sam.ascent_precision: {choice: [same, bf16]}
  training.clip_grad_norm: {float: [0.1, 10.0], log: true}
  training.precision: {choice: [fp32, bf16]}
""",
    )
    assert warnings_of(config) == []
    trial = trial_with(config, {"sam.variant": "msam", "sam.rho": 2.0, "sam.every": 3})
    assert (trial.sam.variant, trial.sam.rho, trial.sam.every) == ("msam", 2.0, 3)
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert read_study(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("raw", "variant"),
    [({}, "sam"), ({"adaptive": False}, "sam"), ({"adaptive": True}, "asam"),
     ({"adaptive": True, "variant": "asam_eta"}, "asam_eta")],
)  # fmt: skip
def test_adaptive_is_a_shorthand_for_asam(raw: dict[str, Any], variant: str) -> None:
    config = SamConfig.model_validate(raw)
    assert config.variant == variant
    assert SamConfig.model_validate(config.model_dump()) == config


def test_adaptive_cannot_contradict_the_variant() -> None:
    with pytest.raises(ValueError, match="but variant is msam"):
        SamConfig.model_validate({"adaptive": True, "variant": "msam"})


def test_searching_the_shorthand_points_to_the_variant(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match=r"search sam\.variant"):
        study(tmp_path, "  sam.adaptive: {choice: [true, false]}")


@pytest.mark.parametrize(
    ("space", "variants"),
    [
        ("  sam.rho: {float: [0.01, 1.0], log: true}", []),
        ("  sam.rho: {float: [0.5, 20.0], log: true}", ["sam"]),
        ("  sam.rho: {float: [0.0, 0.5]}", []),
        (
            "  sam.rho: {float: [0.01, 0.5], log: true}\n"
            "  sam.variant: {choice: [sam, asam, msam]}",
            ["asam", "msam"],
        ),
        ("  sam.every: {int: [1, 2]}", []),
    ],
)
def test_a_range_on_another_variants_scale_is_pointed_out(
    tmp_path: Path, space: str, variants: list[str]
) -> None:
    found = warnings_of(study(tmp_path, space))
    assert [sentence.split(" is unusual for ")[1].split(",")[0] for sentence in found] == variants


@pytest.mark.parametrize(
    "wrong",
    [{"rho": -1}, {"every": 0}, {"start_fraction": 1.0}, {"ascent_fraction": 0.0},
     {"ascent_fraction": 1.1}, {"variant": "gsam"}, {"same_dropout": 1}],
)  # fmt: skip
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        SamConfig.model_validate(wrong)


def test_the_defaults_are_plain_sam(tmp_path: Path) -> None:
    trial: TrialConfig = study(tmp_path, "  sam.every: {int: [1, 2]}").trial
    assert trial.sam == SamConfig(rho=0.05)
    assert (trial.training.channels_last, trial.training.compile) == (True, False)
