from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from samtune.cli import show
from samtune.config.schema import StudyConfig
from samtune.study.study import Study
from tests.synthetic import Run


def test_a_long_table_ends_with_the_command_that_lists_the_rest(
    written: Callable[..., Study],
    study_config: Callable[..., StudyConfig],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(show, "MOST_ROWS", 2)
    values = {"sam.rho": 0.1, "optimizer.lr": 0.1}
    written(study_config(), [Run(values, [0.1 * i]) for i in range(1, 5)])
    show.show("tiny", storage=tmp_path)
    short = capsys.readouterr().out
    assert [f"t000{i} " in short for i in range(1, 5)] == [False, False, True, True]
    assert f"and 2 trials more: `samtune show tiny --all --storage {tmp_path}` lists them" in short
    show.show("tiny", storage=tmp_path, every=True)
    whole = capsys.readouterr().out
    assert all(f"t000{i} " in whole for i in range(1, 5))
