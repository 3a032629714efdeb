"""Each run names the splits that its trial was trained and judged on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
from mlflow.data.schema import TensorDatasetSchema

from samtune import tracking
from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.data import load_dataset
from samtune.data.facts import digest_of
from samtune.study.folder import StudyFolder
from samtune.study.trial_folder import Outcome
from samtune.study.used_data import note_data
from samtune.tracking.shipper import Shipper
from tests.tracking.conftest import Proxy, append, assert_all_there, runs_of, write_study

Make = Callable[..., StudyConfig]
LOG_INPUTS = "/api/2.0/mlflow/runs/log-inputs"


def _note(folder: StudyFolder, **params: Any) -> None:
    """What a worker writes down before a trial's first epoch."""
    for trial in folder.trials():
        record = trial.record()
        assert record is not None
        dataset = record.config.dataset
        if params.items() <= dataset.params.items():
            note_data(folder.root, record.config, load_dataset(dataset.name, **dataset.params))


def _inputs(run: mlflow.entities.Run) -> dict[str, mlflow.entities.Dataset]:
    """A run's data sets by what they are to it, each once."""
    found = {i.tags[0].value: i.dataset for i in run.inputs.dataset_inputs}
    assert len(found) == len(run.inputs.dataset_inputs)
    return found


def test_every_run_has_the_training_and_the_validation_split(folder: StudyFolder, uri: str) -> None:
    _note(folder)
    tracking.sync(folder)
    data = load_dataset("digits", label_noise=0.4)
    for run in runs_of(uri).values():
        splits = _inputs(run)
        assert set(splits) == {"train", "validation"}
        assert splits["train"].name == splits["validation"].name == "digits"
        assert splits["train"].digest == digest_of(data.train)
        assert splits["validation"].digest == digest_of(data.val)
        profile = json.loads(splits["train"].profile)
        assert profile["images"] == sum(profile["images of each class"]) == 1200
        schema = TensorDatasetSchema.from_dict(json.loads(splits["train"].schema))
        (images,), (labels,) = schema.features.inputs, schema.targets.inputs
        assert (images.type, images.shape) == ("uint8", (-1, 8, 8, 1))
        assert (labels.type, labels.shape) == ("int64", (-1,))
        source = mlflow.data.get_source(splits["train"])
        assert source.to_dict()["tags"]["label_noise"] == "0.4"


def test_trials_that_differ_in_their_data_have_their_own(
    tmp_path: Path, study_config: Make, uri: str
) -> None:
    config = study_config(
        ("optimizer.lr: {float: [0.01, 0.5], log: true}", "dataset.label_noise: {choice: [0, 0.2]}")
    )
    folder = StudyFolder.create(tmp_path, config)
    for key, noise in (("t0001", 0.0), ("t0002", 0.2)):
        trial = folder.trial(key)
        trial.hand_out(record_of(config, key, {"sam.rho": 0.1, "dataset.label_noise": noise}), 1)
        append(trial, 1)
        trial.end(Outcome("finished", 1))
    _note(folder)
    tracking.sync(folder)
    runs = runs_of(uri)
    clean, noisy = _inputs(runs["t0001"]), _inputs(runs["t0002"])
    assert clean["train"].digest != noisy["train"].digest
    assert clean["validation"].digest == noisy["validation"].digest
    assert _inputs(runs["study"]) == {}  # no trial has the noise that the study file says


def test_a_lost_reply_and_a_lost_record_double_no_data_set(
    remote: StudyFolder, proxy: Proxy
) -> None:
    _note(remote)
    lost = iter([True, True])
    proxy.rule = lambda _, path, __: "drop" if path == LOG_INPUTS and next(lost, 0) else "pass"
    tracking.sync(remote)
    (remote.root / "tracking.json").unlink()
    tracking.sync(remote)
    for run in runs_of(proxy.uri, remote.name).values():
        assert set(_inputs(run)) == {"train", "validation"}
    assert_all_there(proxy.uri, remote)


def test_a_data_set_that_mlflow_refuses_is_set_aside(remote: StudyFolder, proxy: Proxy) -> None:
    _note(remote)
    proxy.rule = lambda _, path, __: "400" if path == LOG_INPUTS else "pass"
    shipper = Shipper(remote, proxy.uri)
    assert not shipper.ship().failure
    assert set(shipper.shipped.trials["t0001"].refused) == {"data sets"}
    assert_all_there(proxy.uri, remote)


def test_a_trial_without_an_epoch_has_no_data_yet(folder: StudyFolder, uri: str) -> None:
    write_study(folder, {"t0003": 0})
    _note(folder)
    tracking.sync(folder)
    assert _inputs(runs_of(uri)["t0003"]) == {}
