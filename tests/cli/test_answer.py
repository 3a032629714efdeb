"""What a study comes to is said by the summary, by `show`, as JSON, and in the exported file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from samtune.analysis.response import response
from samtune.cli.summary import print_summary
from samtune.export.best import export
from samtune.study.single import train_single
from samtune.study.study import Study, open_study
from tests.commands import samtune_here
from tests.synthetic import Make, Run

Written = Callable[..., Study]


@pytest.fixture
def study(written: Written, study_config: Make) -> Study:
    """Best at a rho of 0.1, whatever the width."""
    widths = "  model.width_factor: {choice: [1, 2]}\n"
    config = study_config(("  optimizer.lr: {float: [0.01, 0.5], log: true}\n", widths))
    runs = [
        Run({"sam.rho": float(rho), "model.width_factor": 1 + i % 2}, [0.5, 0.6, 0.9 - 0.1 * far])
        for i, rho in enumerate(np.geomspace(0.01, 1.0, 12))
        for far in [float(np.log10(rho / 0.1)) ** 2]
    ]
    return written(config, runs, baseline=[0.5, 0.6, 0.7])


def test_the_summary_and_show_name_the_rho_to_take(study: Study) -> None:
    found = response(study)
    assert found is not None
    assert found.rho == pytest.approx(0.1, rel=0.3)
    summary = io.StringIO()
    print_summary(Console(file=summary, width=200), study)
    storage = study.folder.root.parent
    shown = samtune_here("show", "tiny", "--storage", ".", cwd=storage)
    assert shown.returncode == 0, shown.stderr
    for text in (summary.getvalue(), shown.stdout):
        assert found.sentence in text
        assert "width_factor 1" in text
        assert "width_factor 2" in text
    as_json = samtune_here("show", "tiny", "--json", "--storage", ".", cwd=storage)
    assert json.loads(as_json.stdout)["response"] == json.loads(json.dumps(asdict(found)))


def test_the_exported_file_says_what_the_study_recommends(
    tmp_path: Path, study_config: Make
) -> None:
    config = study_config()
    list(train_single(config, "single", tmp_path))
    single = open_study("single", tmp_path)
    export(single, None, tmp_path / "alone.pt", "pt")
    assert torch.load(tmp_path / "alone.pt", weights_only=True)["recommendation"] is None

    searched = Study(single.folder, config)  # the same trial, in a study that searches rho
    export(searched, None, tmp_path / "best.pt", "pt")
    said = torch.load(tmp_path / "best.pt", weights_only=True)["recommendation"]
    assert said["rho"] is None
    assert said["sentence"].startswith("Too few trials to recommend a rho: 1 with a score")
