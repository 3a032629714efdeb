"""A notebook's class as the model: workers and MLflow's process get it, the folder does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import samtune
from samtune.errors import SamtuneError
from samtune.registry import MODELS
from samtune.tracking import wait_until_shipped
from tests.commands import samtune_here

CELL = """
from torch import nn

SLOPE = {slope}

class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(64, width)

    def forward(self, x):
        return nn.functional.leaky_relu(self.linear(x.flatten(1)), SLOPE)

class Net(nn.Sequential):
    def __init__(self, *, num_classes: int, width: int = 8):
        super().__init__(Layer(width), nn.Linear(width, num_classes))
"""
STUDY: dict[str, Any] = {
    "name": "given",
    "trial": {
        "model": {"width": 4},
        "dataset": {"name": "digits"},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "training": {"epochs": 1, "batch_size": 400},
    },
    "search_space": {"sam.rho": {"float": [0.01, 1.0], "log": True}},
    "study": {"trials": 1},
}


def _net(slope: float = 0.1) -> Any:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(CELL.format(slope=slope), "<a cell>", "exec"), names)
    return names["Net"]


@pytest.mark.parametrize("more", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_class_of_a_notebook_is_searched_resumed_and_registered(
    tmp_path: Path,
    mlflow_here: Path,
    monkeypatch: pytest.MonkeyPatch,
    local_ray: None,
    more: int,
) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{mlflow_here}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    before = dict(MODELS._entries)
    monkeypatch.setattr(MODELS, "_entries", dict(before))
    storage = tmp_path / "samtune_studies"
    study = samtune.run_study(STUDY, model=_net(), storage=storage)
    assert study.tally == "2 finished"
    best = study.best
    assert best is not None
    assert best.config.model.name.startswith("Net@")
    assert best.load_model()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert wait_until_shipped(study.folder.root).epochs == 0
    assert MlflowClient(uri).get_model_version_by_alias("given", "champion")
    kept = [p for p in study.folder.root.rglob("*") if p.is_file()]
    assert not [p for p in kept if b"cloudpickle" in p.read_bytes()]

    # In another notebook: nothing, other code, and the same code.
    MODELS._entries = dict(before)
    refused = samtune_here("resume", "given", "--trials", "+1", cwd=tmp_path)
    assert refused.returncode == 2
    assert "lies in no module" in refused.stderr
    with pytest.raises(SamtuneError, match="was other code than the Net that is here"):
        samtune.resume_study("given", model=_net(0.2), more_trials=1, storage=storage)
    MODELS._entries = dict(before)
    resumed = samtune.resume_study("given", model=_net(), more_trials=more, storage=storage)
    assert resumed.tally == f"{2 + more} finished"
