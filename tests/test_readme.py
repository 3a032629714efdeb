"""A model of one's own from the README (`tests/docs`), exported and resumed from elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from samtune.study import open_study
from samtune.study.settings import Change, read_settings
from tests.commands import samtune_here
from tests.docs.blocks import blocks

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.ray
def test_a_model_of_ones_own_pasted_into_an_empty_folder_runs(
    tmp_path: Path, mlflow_here: Path, local_ray: None
) -> None:
    for block in blocks(README):
        if block.title:
            (tmp_path / block.title).write_text(block.text)
    overrides = "study.trials=1", "study.register_model=false"
    ran = samtune_here("run", "mine.yaml", *overrides, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    study = open_study("mine", tmp_path / "samtune_studies")
    assert len(study.trials) == 2
    assert all(t.config.model.name == "mlp" for t in study.trials)

    # From elsewhere, too, the module that the user names is found where the study found it.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    named = ["--plugin", "my_models", "--storage", str(tmp_path / "samtune_studies")]
    command = [sys.executable, "-m", "samtune", "export", "mine", "-o", "best.pt", *named]
    exported = subprocess.run(
        command, capture_output=True, text=True, cwd=elsewhere, timeout=200, check=False
    )
    assert exported.returncode == 0, exported.stdout + exported.stderr
    assert "as recorded" in exported.stdout
    resumed = samtune_here("resume", "mine", "study.keep_weights=1", *named, cwd=elsewhere)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "changed    study.keep_weights: 5 -> 1" in resumed.stdout
    settings = read_settings(study.folder.root)
    assert settings is not None
    assert settings.changes == [Change(2, "study.keep_weights", 5, 1)]
