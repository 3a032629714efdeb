"""What several GPUs cannot share of a trial is said before one starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from samtune.config.schema import StudyConfig
from samtune.config.study_file import read_study
from samtune.errors import SamtuneError
from samtune.preflight import preview, warnings_of
from samtune.registry import register_model

FILE = """
name: shared
trial:
  model: {{name: {model}}}
  dataset: {{name: digits}}
  optimizer: {{name: sgd, lr: 0.1}}
  sam: {{{sam}}}
  training: {{epochs: 1, batch_size: {batch_size}, micro_batch_size: {micro_batch_size}}}
study: {{scheduler: none, baseline: {baseline}, resources: {{gpus: {gpus}}}}}
"""
USUAL = {
    "model": "several_gpus_norm", "sam": "", "batch_size": 8, "micro_batch_size": "null",
    "baseline": "true", "gpus": 4,
}  # fmt: skip


class NormWithRelu(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


@register_model("several_gpus_norm")
def plain(*, in_channels: int, num_classes: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(in_channels), nn.Flatten(), nn.Linear(64, num_classes))


@register_model("several_gpus_own_norm")
def own(*, in_channels: int, num_classes: int) -> nn.Module:
    return nn.Sequential(NormWithRelu(in_channels), nn.Flatten(), nn.Linear(64, num_classes))


def study(tmp_path: Path, **settings: Any) -> StudyConfig:
    path = tmp_path / "study.yaml"
    path.write_text(FILE.format(**{**USUAL, **settings}))
    return read_study(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 3}, "3 images are too few for 4 processes"),
        ({"sam": "ascent_fraction: 0.25"}, "2 images are too few for 4 processes"),
        ({"model": "several_gpus_own_norm"}, "0 is a NormWithRelu.*training.micro_batch_size"),
        # The baseline does not climb, and so takes its batches as a whole.
        ({"model": "several_gpus_own_norm", "sam": "micro_ascent: 2"}, "0 is a NormWithRelu"),
        (
            {"model": "several_gpus_own_norm", "sam": "micro_ascent: 2, every: 2"},
            "0 is a NormWithRelu",
        ),
    ],
)
def test_batch_norms_that_gpus_cannot_share_are_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SamtuneError, match=message):
        preview(study(tmp_path, **settings), tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_size": 3, "gpus": 1},
        {"batch_size": 3, "gpus": "auto"},
        {"model": "several_gpus_own_norm", "micro_batch_size": 2},
        {"model": "several_gpus_own_norm", "sam": "micro_ascent: 2", "baseline": "false"},
    ],
)
def test_all_others_are_not(tmp_path: Path, settings: dict[str, Any]) -> None:
    preview(study(tmp_path, **settings), tmp_path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, []),
        ({"sam": "micro_ascent: 2"}, []),
        ({"sam": "micro_ascent: 2", "gpus": 1}, []),
        ({"sam": "micro_ascent: 4"}, ["has 2 parts of sam.micro_ascent = 4, which 4 GPUs"]),
        ({"micro_batch_size": 3}, ["has 3 parts of training.micro_batch_size = 3, which 4 GPUs"]),
        ({"sam": "micro_ascent: 2", "micro_batch_size": 1}, []),  # which are of one GPU each
        ({"batch_size": 2}, ["a batch of 2 image(s) is shared by 4 GPUs"]),
    ],
)
def test_gpus_that_would_wait_are_told_of(
    tmp_path: Path, settings: dict[str, Any], said: list[str]
) -> None:
    found = warnings_of(study(tmp_path, **settings))
    assert len(found) == len(said)
    assert all(part in sentence for part, sentence in zip(said, found, strict=True))
