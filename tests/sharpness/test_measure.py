"""What is measured of a study's trials, on which images, and how it is kept."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from samtune.config.checked_trial import record_of
from samtune.config.study_file import read_study
from samtune.data import load_dataset
from samtune.errors import SamtuneError
from samtune.sharpness import Sharpness, Wanted, outdated, question_of, read_sharpness
from samtune.sharpness.measure import measure, subset
from samtune.study import Study, StudyFolder
from samtune.study.weights import load_trained
from tests.commands import samtune_here
from tests.faults.saboteur import run
from tests.study.test_weights import TRIALS

FEW = Wanted(images=40, batch_size=20, grid=3)


def trained(storage: Path, model: str, dataset: str, metric: str) -> Study:
    """A study whose baseline and one trial with SAM have run."""
    path = storage / "study.yaml"
    path.write_text(
        f"name: flat\ntrial:\n  model: {model}\n  dataset: {dataset}\n"
        "  optimizer: {name: adam, lr: 0.003}\n"
        "  training: {epochs: 1, batch_size: 100, precision: fp32}\n"
        f"search_space: {{sam.rho: {{float: [0.01, 0.5]}}}}\nstudy: {{metric: {metric}}}\n"
    )
    config = read_study(path)
    folder = StudyFolder.create(storage, config)
    data = load_dataset(config.trial.dataset.name)
    for key, rho in (("t0000", 0.0), ("t0001", 0.2)):
        folder.trial(key).hand_out(record_of(config, key, {"sam.rho": rho}), 1)
        run(folder.trial(key), data)
    return Study(folder, config)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    torch.set_num_threads(1)
    return trained(tmp_path_factory.mktemp("study"), *TRIALS[0])


@pytest.fixture(scope="module")
def found(study: Study) -> Sharpness:
    """What was measured of both trials."""
    return measure(study, question_of(study, FEW))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "dataset", "metric"), TRIALS[1:], ids=["capsnet", "unet"])
def test_every_task_gives_its_own_loss(tmp_path, model, dataset, metric):
    study = trained(tmp_path, model, dataset, metric)
    found = measure(
        study, question_of(study, replace(FEW, trials=["t0001"], images=8, batch_size=4))
    )
    assert found.task == ("capsule" if "capsnet" in model else "segmentation")
    [trial] = found.trials
    assert all(rise.one_step is not None for rise in trial.rises)
    assert trial.curvature is not None, trial.no_curvature
    assert trial.curvature.eigenvalues[0] > 0
    assert trial.landscape is not None
    assert trial.landscape.plane[1][1] == pytest.approx(trial.loss)
    assert trial.landscape.line[20] == pytest.approx(trial.loss)


def test_the_loss_is_that_of_plain_training_images_in_evaluation_mode(study, found):
    data = load_dataset("digits")
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:40]
    pixels = data.train.images[order].permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (data.mean, data.std))
    for trial in found.trials:
        model = load_trained(study.trial(trial.trial)).model.eval()
        with torch.no_grad():
            logits = model((pixels - mean) / std)
        expected = F.cross_entropy(logits, data.train.targets[order])
        assert trial.loss == pytest.approx(float(expected), rel=1e-5)


def test_batches_are_full_and_of_training_images_alone(study):
    data = load_dataset("digits")
    whole, size = subset(data, question_of(study, Wanted(images=250)))
    assert (len(whole.val), size) == (200, 100)
    train = {image.numpy().tobytes() for image in data.train.images}
    assert {image.numpy().tobytes() for image in whole.val.images} <= train
    few, size = subset(data, question_of(study, Wanted(images=30)))
    assert (len(few.val), size) == (30, 30)
    again, _ = subset(data, question_of(study, Wanted(images=250, seed=1)))
    assert not torch.equal(again.val.images, whole.val.images)


def test_two_trials_are_measured_at_the_same_rhos(study, found):
    question = question_of(study, FEW)
    assert question.weights[0].trial == "t0001"
    assert (question.rhos, question.adaptive_rhos) == ([0.05, 0.2], [0.5])
    at = [[(r.rho, r.adaptive) for r in trial.rises] for trial in found.trials]
    assert at == [[(0.05, False), (0.2, False), (0.5, True)]] * 2
    assert question_of(study, replace(FEW, rhos=[0.3])).rhos == [0.3]


def test_the_same_question_gives_the_same_numbers_and_is_read_the_next_time(study, found):
    assert read_sharpness(study) == found
    path = study.folder.root / "sharpness.json"
    path.unlink()
    assert read_sharpness(study) is None
    assert measure(study, question_of(study, FEW)) == found
    path.write_text("{")
    assert read_sharpness(study) is None
    assert json.loads(json.dumps(asdict(found)))["trials"][0]["trial"] == "t0001"


def test_what_has_changed_since_is_said(study, found):
    assert outdated(study, found) == []
    assert "t0001 is gone." in outdated(replace_trials(study, study.trials[:1]), found)
    question = replace(found.question, weights=found.question.weights[1:])
    [said] = outdated(study, replace(found, question=question))
    assert said == "The best trial is t0001 by now, which is not among those measured."
    old = [replace(w, digest="0") for w in found.question.weights[:1]]
    question = replace(found.question, weights=[*old, *found.question.weights[1:]])
    assert outdated(study, replace(found, question=question)) == [
        "t0001 has other weights by now than were measured."
    ]


def replace_trials(study, trials):
    other = Study(study.folder, study.config)
    other.trials = list(trials)
    return other


def test_the_verb_measures_once_prints_a_table_and_json(study, tmp_path):
    storage = ["--storage", str(study.folder.root.parent)]
    few = ["--images", "20", "--grid", "0"]
    first = samtune_here("sharpness", "flat", *storage, *few, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    for said in ("t0001  t0000 baseline", "rise within rho 0.2", "largest eigenvalue", "trace"):
        assert said in first.stdout
    path = study.folder.root / "sharpness.json"
    written = path.stat().st_mtime_ns
    second = samtune_here("sharpness", "flat", *storage, *few, "--json", cwd=tmp_path)
    assert json.loads(second.stdout) == json.loads(path.read_text())
    assert path.stat().st_mtime_ns == written
    own = [*storage, *few, "--rho", "0.1", "--trials", "t0000", "t0001", "--json"]
    other = json.loads(samtune_here("sharpness", "flat", *own, cwd=tmp_path).stdout)
    assert [t["trial"] for t in other["trials"]] == ["t0000", "t0001"]
    assert other["question"]["rhos"] == [0.1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--trials", "t0009"], "No trial named 't0009'"),
        (["--rho", "0"], "within a rho above 0"),
        (["--rho", "nan"], "within a rho above 0"),
        (["--grid", "1"], "2 points a side at least"),
    ],
)
def test_what_cannot_be_measured_is_said_in_a_sentence(study, tmp_path, arguments, said):
    storage = ["--storage", str(study.folder.root.parent)]
    ended = samtune_here("sharpness", "flat", *storage, *arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert said in ended.stderr


def test_without_curvlinops_all_but_the_hessian_is_measured(study, monkeypatch):
    monkeypatch.setattr("samtune.sharpness.result.HESSIANS", "not_installed_anywhere")
    found = measure(study, question_of(study, FEW))
    assert all(t.curvature is None and t.rises and t.landscape for t in found.trials)


def test_a_study_without_weights_is_refused(study_folder, study_config):
    study = Study(study_folder, study_config())
    with pytest.raises(SamtuneError, match="no trial with weights"):
        question_of(study, FEW)
