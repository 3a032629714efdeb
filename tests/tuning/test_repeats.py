"""The same file, seed and one worker give the same study; with two, the same settings the same."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from samtune.config.study_file import read_study
from samtune.data import load_dataset
from samtune.study import Study, StudyFolder
from samtune.training.loop import train
from samtune.training.state import set_up
from samtune.tuning import run_study
from samtune.tuning.run import Silent
from samtune.tuning.search import Search
from tests.faults.oracle import accounts
from tests.tuning.test_confirm import PLUGIN
from tests.tuning.without_ray import epochs_of

FILE = """
name: again
plugins: [my_linear_again]
trial:
  model: {name: my_linear_again}
  dataset: {name: digits, label_noise: 0.4}
  optimizer: {name: sgd, lr: 0.1}
  training: {epochs: 2, batch_size: 400}
search_space:
  sam.rho: {float: [0.01, 2.0], log: true}
  optimizer.lr: {float: [0.01, 2.0], log: true}
study:
  {trials: 13, scheduler: {name: asha, grace_epochs: 1, reduction_factor: 2}, seed: 3,
  register_model: false, report: false, resources: {cpus: CPUS}}
"""


@pytest.fixture
def file(tmp_path: Path, mlflow_here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    plugin = PLUGIN.replace('"my_linear"', '"my_linear_again"')
    (tmp_path / "my_linear_again.py").write_text(plugin)
    return tmp_path / "again.yaml"


def _run(file: Path, storage: str, cpus: int) -> Study:
    file.write_text(FILE.replace("CPUS", str(cpus)))
    return run_study(file, storage=file.parent / storage)


def _run_without_ray(file: Path, storage: str, cpus: int) -> Study:
    """Trial after trial in this process."""
    config = read_study(file)
    folder = StudyFolder.create(file.parent / storage, config)
    torch.set_num_threads(cpus)
    with folder.session() as number:
        for _ in epochs_of(Search(folder, config, number, Silent())):
            pass
    return Study(folder, config)


@pytest.mark.ray
def test_two_runs_of_one_file_with_one_worker_are_identical(file: Path, local_ray: None) -> None:
    """Three trials more than the sampler draws before it learns; the scheduler stops some."""
    every = os.cpu_count() or 1
    one, other = _run(file, "one", every), _run_without_ray(file, "other", every)
    assert {"finished", "stopped"} <= {t.state for t in one.trials}
    assert accounts(one) == accounts(other)


@pytest.mark.slow
@pytest.mark.ray
def test_beside_others_a_trial_has_the_numbers_it_has_alone(file: Path, local_ray: None) -> None:
    """Whichever trials are drawn and stopped, as their order decides: each is trained anew here."""
    study = _run(file, "beside", 1)
    assert len(study.trials) == 14
    cpu, data = torch.device("cpu"), load_dataset("digits", label_noise=0.4)
    for trial in study.trials:
        alone = train(set_up(trial.config, data, cpu), trial.config, data, cpu)
        for entry, result in zip(trial.epochs, alone, strict=False):
            assert entry.metrics == result.metrics, trial.key
