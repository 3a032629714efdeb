"""What a study file may say about training: searched, and refused where it contradicts itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from samtune.config.checked_trial import trial_with
from samtune.config.schema import StudyConfig
from samtune.config.study_file import read_study, to_yaml
from samtune.errors import StudyFileError
from samtune.preflight import preview

STUDY = """
name: recipes
trial:
  model: {name: wide_resnet, depth: 10, width_factor: 1}
  dataset: {name: digits}
  optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
  training: {epochs: 4}
search_space:
"""


def study(tmp_path: Path, space: str, *overrides: str) -> StudyConfig:
    (tmp_path / "study.yaml").write_text(STUDY + space)
    return read_study(tmp_path / "study.yaml", overrides)


def test_every_way_to_train_can_be_searched(tmp_path: Path) -> None:
    config = study(
        tmp_path,
        """
  sam.micro_ascent: {choice: [null, 16, 32]}
  training.warmup_epochs: {float: [0.0, 3.5]}
  training.lr_interval: {choice: [epoch, step]}
  training.decay_norms_and_biases: {choice: [true, false]}
  training.ema_decay: {choice: [null, 0.99, 0.999]}
""",
    )
    trial = trial_with(config, {"training.ema_decay": 0.99, "sam.micro_ascent": 16})
    assert (trial.training.ema_decay, trial.sam.micro_ascent) == (0.99, 16)
    assert trial_with(config, {"training.ema_decay": None}).training.averages is False
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert read_study(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (
            "  sam.variant: {choice: [sam, msam]}\n  sam.micro_ascent: {choice: [null, 8]}",
            "sam.variant = 'msam', sam.micro_ascent = 8: sam: micro_ascent climbs along",
        ),
        (
            "  training.ema_decay: {choice: [null, 0.9]}\n"
            "  training.average_from: {choice: [null, 0.5]}",
            "training.ema_decay = 0.9, training.average_from = 0.5: training: ema_decay and",
        ),
        ("  training.warmup_epochs: {float: [0.0, 4.0]}", "allows 4.0: training: warmup_epochs"),
        (
            "  sam.micro_ascent: {int: [0, 8]}",
            "sam.micro_ascent: allows 0: should be greater",
        ),
    ],
)
def test_combinations_that_contradict_themselves_are_found_before_any_trial(
    tmp_path: Path, space: str, sentence: str
) -> None:
    with pytest.raises(StudyFileError) as error:
        study(tmp_path, space)
    assert any(sentence in problem for problem in error.value.problems), error.value.problems


def test_a_condition_keeps_apart_what_excludes_each_other(tmp_path: Path) -> None:
    study(
        tmp_path,
        "  sam.variant: {choice: [sam, msam]}\n"
        "  sam.micro_ascent: {choice: [16, 32], when: {sam.variant: sam}}",
    )


def test_fewer_epochs_than_the_warmup_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError) as error:
        study(tmp_path, "", "training.warmup_epochs=2.5", "training.epochs=2")
    [problem] = error.value.problems
    assert problem.endswith("warmup_epochs must be below epochs (2), got 2.5.")


def test_the_preview_counts_an_averages_place_on_the_disk(tmp_path: Path) -> None:
    def disk(space: str, *overrides: str) -> int:
        return preview(study(tmp_path, space, *overrides), tmp_path).disk_bytes_at_work

    # Weights and momentum in two states and the best weights, and the average in both states.
    plain = disk("")
    assert 5 * disk("", "training.average_from=0.5") == 7 * plain
    two = disk("  training.label_smoothing: {choice: [0.0, 0.1]}")
    assert 5 * disk("  training.ema_decay: {choice: [null, 0.9]}") == 7 * two
