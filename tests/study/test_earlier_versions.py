"""A run made by an earlier version goes on where its settings are today's, and only there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from samtune.config.schema import StudyConfig
from samtune.config.study_file import check_study
from samtune.config.yaml_reader import parse_yaml
from samtune.errors import SamtuneError
from samtune.study.folder import StudyFolder
from samtune.study.single import train_single
from samtune.study.trial_run import Progress

TEXT = """
name: single
trial:
  model: {name: resnet, blocks: [1], channels: [4]}
  dataset: {name: digits}
  optimizer: {name: sgd, lr: 0.1}
  training: {epochs: 2, batch_size: 400}
"""


def config() -> StudyConfig:
    return check_study(parse_yaml(TEXT, "single.yaml"), Path.cwd())


@pytest.fixture
def half_done(tmp_path: Path) -> Path:
    """The storage of a run that was stopped after its first epoch."""
    run = train_single(config(), "single", tmp_path)
    next(run)
    run.close()  # type: ignore[attr-defined]
    return tmp_path


def stored(storage: Path) -> dict[str, Any]:
    raw: dict[str, Any] = StudyFolder.open(storage, "single").config().model_dump(mode="json")
    return raw


def store(storage: Path, raw: dict[str, Any]) -> None:
    (storage / "single" / "study.yaml").write_text(json.dumps(raw))
    (storage / "single" / "settings.json").unlink()  # where the text is kept that was accepted


def fresh_epochs(progress: list[Progress]) -> list[int]:
    return [p.epoch for p in progress if p.metrics and not p.replayed]


def test_settings_added_since_change_nothing(half_done: Path) -> None:
    raw = stored(half_done)
    del raw["trial"]["training"]["warmup_epochs"]
    del raw["trial"]["sam"]["micro_ascent"]
    del raw["trial"]["model"]["stem_reduction"]
    store(half_done, raw)
    progress = list(train_single(config(), "single", half_done))
    assert fresh_epochs(progress) == [2]


def test_a_default_that_is_another_since_is_another_run(half_done: Path) -> None:
    raw = stored(half_done)
    raw["trial"]["training"]["lr_schedule"] = "constant"  # what was the default then, say
    store(half_done, raw)
    with pytest.raises(SamtuneError, match="holds a run with other settings"):
        list(train_single(config(), "single", half_done))
