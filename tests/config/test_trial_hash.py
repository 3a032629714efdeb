"""By its hash a trial knows its own training state: what was said, and not what could be said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from samtune.config.trial import SamConfig, TrainingConfig, TrialConfig

RAW: dict[str, Any] = {
    "model": {"name": "wide_resnet", "depth": 10, "width_factor": 1},
    "dataset": {"name": "digits", "label_noise": 0.4},
    "optimizer": {"name": "sgd", "lr": 0.1},
    "sam": {"rho": 0.3},
    "training": {"epochs": 3},
}


def trial(**sections: dict[str, Any]) -> TrialConfig:
    raw = {name: {**RAW[name], **sections.get(name, {})} for name in RAW}
    return TrialConfig.model_validate(raw)


class LaterTraining(TrainingConfig):
    added_later: float = 0.5


class LaterTrial(TrialConfig):
    training: LaterTraining


def test_a_setting_added_later_leaves_the_hash_alone_until_it_is_used() -> None:
    assert LaterTrial.model_validate(RAW).hash == trial().hash
    used = {**RAW, "training": {"epochs": 3, "added_later": 0.7}}
    assert LaterTrial.model_validate(used).hash != trial().hash


def test_a_default_said_in_the_file_is_no_other_trial() -> None:
    assert trial(sam={"variant": "sam"}, training={"batch_size": 128}).hash == trial().hash
    assert trial(model={"dropout": 0.0}).hash == trial().hash
    assert trial(dataset={"split_seed": 0}).hash == trial().hash


def _others(cls: type[SamConfig] | type[TrainingConfig]) -> Iterator[tuple[str, Any]]:
    """Each setting with a value that is not its default."""
    for name, info in cls.model_fields.items():
        candidates = [True, False, 2, 7, 0.125, 0.25, *get_args(info.annotation)]
        for value in candidates:
            try:
                changed = cls.model_validate({"epochs": 3, name: value} if cls is TrainingConfig
                                             else {name: value})  # fmt: skip
            except ValidationError:
                continue
            if getattr(changed, name) not in (info.default, RAW["training"].get(name)):
                yield name, value
                break
        else:
            raise AssertionError(f"no other value for {name} is tried here: add one")


@pytest.mark.parametrize(("name", "value"), list(_others(SamConfig)))
def test_every_setting_of_sam_counts(name: str, value: Any) -> None:
    assert trial(sam={name: value}).hash != trial().hash


@pytest.mark.parametrize(("name", "value"), list(_others(TrainingConfig)))
def test_every_setting_of_the_training_counts(name: str, value: Any) -> None:
    assert trial(training={name: value}).hash != trial().hash


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("model", {"depth": 16}),
        ("model", {"name": "wrn_40_4", "depth": 10}),
        ("dataset", {"label_noise": 0.2}),
        ("dataset", {"label_noise": 0.0}),
        ("optimizer", {"lr": 0.2}),
        ("optimizer", {"momentum": 0.9}),
    ],
)
def test_what_is_said_of_model_data_and_optimizer_counts(
    section: str, change: dict[str, Any]
) -> None:
    assert trial(**{section: change}).hash != trial().hash
