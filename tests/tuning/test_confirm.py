"""A confirmation from its plan to its table: pairs, one reading of the test split, and resuming."""

from __future__ import annotations

import ast
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from samtune import register_model
from samtune.analysis.confirmed import Confirmed
from samtune.config.checked_trial import record_of
from samtune.config.schema import SearchConfig, StudyConfig
from samtune.config.study_file import check_study, read_study
from samtune.config.trial import SamConfig
from samtune.config.yaml_reader import parse_yaml
from samtune.data import load_dataset, unlocked_test_split
from samtune.errors import SamtuneError, StudyFileError
from samtune.study.folder import StudyFolder
from samtune.study.held_out import held_out_scores, read_test
from samtune.study.journal import Entry, Journal
from samtune.study.manifest import Reading
from samtune.study.study import Study
from samtune.study.trial_folder import Outcome
from samtune.study.weights import load_trained
from samtune.training.loop import train
from samtune.training.state import set_up
from samtune.tuning.confirm import Wanted, conclude, finalists, plan
from samtune.tuning.run import Silent
from samtune.tuning.search import Search
from tests.commands import samtune_here
from tests.tuning.without_ray import epochs_of

SAMTUNE = Path(__file__).parent.parent.parent / "samtune"
FILE = """
name: tiny
trial:
  model: {name: confirm_linear}
  dataset: {name: digits}
  optimizer: {name: sgd, lr: 0.1}
  sam: {rho: 0.3}
  training: {epochs: 2, batch_size: 400, precision: fp32}
search_space:
  sam.rho: {float: [0.0, 1.0]}
  sam.every: {choice: [1, 2, 4]}
  optimizer.lr: {float: [0.01, 0.5], log: true}
study: {trials: 4, scheduler: none}
"""

PLUGIN = """
from torch import nn
from samtune import register_model

@register_model("my_linear")
class Linear(nn.Sequential):
    def __init__(self, *, num_classes: int):
        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))
"""


@register_model("confirm_linear")
class Linear(nn.Sequential):
    def __init__(self, *, num_classes: int) -> None:
        """One layer."""
        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))


def _values(rho: float, lr: float, every: int = 1) -> dict[str, float]:
    return {"sam.rho": rho, "sam.every": every, "optimizer.lr": lr}


@pytest.fixture
def searched(tmp_path: Path) -> StudyFolder:
    """A study that has ended, from its journals; the baseline is its best trial."""
    config = check_study(parse_yaml(FILE, "tiny.yaml"), tmp_path)
    folder = StudyFolder.create(tmp_path, config)
    trials = [
        ({"sam.rho": 0.0}, 0.99),
        (_values(0.2, 0.1), 0.90),
        (_values(0.4, 0.1, every=2), 0.95),
        (_values(0.0, 0.2), 0.97),
        (_values(0.4, 0.1, every=2), 0.94),
    ]
    for number, (values, score) in enumerate(trials):
        trial = folder.trial(f"t{number:04d}")
        trial.hand_out(record_of(config, trial.key, values), 1)
        entry = Entry(1, 1, 1, {"val_accuracy": score}, 0.1, 0, "state", "0")
        Journal(trial.journal).append(entry)
        trial.end(Outcome("finished", 2 if score else 1), 1)
    return StudyFolder.open(tmp_path, "tiny")


def _run(folder: StudyFolder, config: StudyConfig, *, epochs: float = math.inf) -> Study:
    """What Ray does with a study, in this process; ends for good after so many epochs."""
    with folder.session() as number:
        for p in epochs_of(Search(folder, config, number, Silent())):
            epochs -= not p.replayed
            if epochs <= 0:
                break
    return Study(folder, config)


def _begun(searched: StudyFolder, name: str = "tiny-confirm", **wanted: int) -> StudyFolder:
    config = plan(searched, searched.config(), name, Wanted(**{"top": 2, "seeds": 2, **wanted}))[1]
    StudyFolder.create(searched.root.parent, config)
    return StudyFolder.open(searched.root.parent, name)


def _confirmed(searched: StudyFolder, name: str = "tiny-confirm", **wanted: int) -> Confirmed:
    folder = _begun(searched, name, **wanted)
    again = bool(wanted.get("read_test_again"))
    return conclude(searched, _run(folder, folder.config()), again=again)


@pytest.mark.parametrize(
    ("settings", "gradients"),
    [
        ({}, 2),
        ({"rho": 0.0}, 1),
        ({"variant": "msam"}, 1),
        ({"variant": "fsam"}, 2),
        ({"every": 4}, 1.25),
        ({"ascent_fraction": 0.25}, 1.25),
        ({"start_fraction": 0.5}, 1.5),
        ({"start_fraction": 0.85}, 1.1),  # of 10 epochs: SAM from the ninth on would be 1.2
        ({"start_fraction": 0.5, "every": 2, "ascent_fraction": 0.5}, 1.125),
    ],
)
def test_a_steps_cost_follows_from_its_gradients(
    settings: dict[str, float | str], gradients: float
) -> None:
    sam = SamConfig.model_validate({"rho": 0.1, **settings})
    assert sam.gradients_per_step(10) == pytest.approx(gradients)


def test_finalists_are_the_best_with_sam_and_differ(searched: StudyFolder) -> None:
    found = finalists(Study(searched, searched.config()), 3)
    # t0000 and t0003 have no SAM, and t0004 is t0002 again.
    assert [f.trial for f in found] == ["t0002", "t0001"]
    half, full = found
    assert half.values == _values(0.4, 0.1, every=2)
    assert half.equal_epochs == full.equal_epochs == {"sam.rho": 0.0, "optimizer.lr": 0.1}
    # SAM in each second step costs 1.5 gradients, in each step 2: of 2 epochs 3 and 4.
    assert half.equal_compute == {**half.equal_epochs, "training.epochs": 3}
    assert full.equal_compute == {**full.equal_epochs, "training.epochs": 4}


def test_seeds_are_none_of_the_searchs_and_nothing_else_of_the_study_changes(
    searched: StudyFolder,
) -> None:
    config = _begun(searched).config()
    assert config.confirm is not None
    assert config.confirm.seeds == [1, 2]
    assert (config.trial, config.search_space) == (searched.config().trial, {})
    assert config.study.scheduler.name == "none"
    assert not config.study.baseline


def test_what_a_search_was_given_or_had_enough_of_is_no_affair_of_its_confirmation(
    searched: StudyFolder,
) -> None:
    asked = {
        "try_first": [_values(0.1, 0.1)],
        "warm_start": ["other"],
        "audit": 0.5,
        "time_budget": 0.1,
        "device_budget": 0.1,
        "target": 0.5,
    }
    config = searched.config()
    limited = config.model_copy(update={"study": config.study.model_copy(update=asked)})
    begun = plan(searched, limited, "tiny-confirm", Wanted())[1].study
    assert {name: getattr(begun, name) for name in asked} == {
        name: field.get_default(call_default_factory=True)
        for name, field in SearchConfig.model_fields.items()
        if name in asked
    }


def test_a_confirmation_ends_with_a_table_of_pairs_and_is_derived_again_without_reading(
    searched: StudyFolder,
) -> None:
    found = _confirmed(searched)
    folder = StudyFolder.open(searched.root.parent, "tiny-confirm")
    study = Study(folder, folder.config())
    assert len(study.trials) == 2 * (2 + 1 + 2)  # equal epochs is shared, equal compute differs
    pairs = [
        (study.trial(ours).config.training.seed, study.trial(theirs).config.training.seed)
        for row in found.rows
        for baseline in row.baselines
        for ours, theirs in zip(row.trials, baseline.trials, strict=True)
    ]
    assert pairs == [(1, 1), (2, 2)] * 4
    assert {t.config.dataset.params["split_seed"] for t in study.trials} == {0}
    written = json.loads((folder.root / "confirm.json").read_text())
    assert written["verdict"] == found.verdict
    readings = searched.manifest.test_readings
    assert [(r.confirmation, r.done) for r in readings] == [("tiny-confirm", True)]
    assert "@" in readings[0].by
    (folder.root / "confirm.json").unlink()
    assert conclude(searched, study) == found
    assert searched.manifest.test_readings == readings


def test_the_scores_are_those_of_the_weights_on_the_test_images(searched: StudyFolder) -> None:
    _confirmed(searched)
    folder = StudyFolder.open(searched.root.parent, "tiny-confirm")
    scores = held_out_scores(folder)
    assert scores.images == 300
    trained = load_trained(Study(folder, folder.config()).trial("t0001"))
    with unlocked_test_split():
        test = load_dataset("digits").open_test()
    inputs, targets = next(iter(replace(trained.data, val=test).val_batches(300, CPU).in_order()))
    with torch.no_grad():
        right = (trained.model(inputs).argmax(1) == targets).float().mean().item()
    assert scores.trials["t0001"].metrics["test_accuracy"] == pytest.approx(right)


def test_a_confirmation_that_was_killed_gives_the_same_table(
    searched: StudyFolder, tmp_path: Path
) -> None:
    undisturbed = _confirmed(searched, "whole")
    folder = _begun(searched, read_test_again=1)
    for epochs in (1, 4, 2):
        study = _run(folder, folder.config(), epochs=epochs)
    assert 0 < study.left < 10
    found = conclude(searched, _run(folder, folder.config()), again=True)
    assert found == undisturbed


def test_a_damaged_trial_is_run_again_under_another_key(searched: StudyFolder) -> None:
    folder = _begun(searched)
    study = _run(folder, folder.config(), epochs=5)
    (folder.trial("t0001").root / "trial.json").write_text("{")
    study = _run(folder, folder.config())
    assert (study.left, study.trials[-1].key) == (0, "t0011")
    anew = conclude(searched, study).rows[0].trials[0]
    assert study.trial(anew).values == {**_values(0.4, 0.1, every=2), "training.seed": 1}


def test_a_second_reading_needs_the_users_word(searched: StudyFolder) -> None:
    _confirmed(searched)
    with pytest.raises(SamtuneError, match=r"was read at 20.* for tiny-confirm.*--read-test-again"):
        _begun(searched, "other")
    _confirmed(searched, "other", read_test_again=1)
    names = [r.confirmation for r in searched.manifest.test_readings]
    assert names == ["tiny-confirm", "other"]


def test_scores_that_are_gone_are_not_read_again_without_a_word(searched: StudyFolder) -> None:
    _confirmed(searched)
    folder = StudyFolder.open(searched.root.parent, "tiny-confirm")
    study = Study(folder, folder.config())
    known = held_out_scores(folder)
    (folder.root / "test.json").unlink()
    with pytest.raises(SamtuneError, match="--read-test-again"):
        read_test(searched, study)
    assert read_test(searched, study, again=True).trials == known.trials


def test_a_reading_that_was_killed_is_taken_up_again(searched: StudyFolder) -> None:
    folder = _begun(searched)
    study = _run(folder, folder.config())
    assert folder.study_id is not None
    searched.note_test_reading(Reading("me@here", "2026", "tiny-confirm", folder.study_id, False))
    conclude(searched, study)
    assert [r.done for r in searched.manifest.test_readings] == [True]


def test_another_plan_under_the_same_name_is_refused(searched: StudyFolder) -> None:
    _begun(searched)
    config = searched.config()
    folder, begun = plan(searched, config, "tiny-confirm", Wanted())
    assert folder is not None
    assert len(begun.confirm.seeds if begun.confirm else []) == 2
    with pytest.raises(SamtuneError, match="begun with --top 2 --seeds 2: go on with just these"):
        plan(searched, config, "tiny-confirm", Wanted(seeds=3))
    with pytest.raises(SamtuneError, match="holds no confirmation"):
        plan(searched, config, "tiny", Wanted())
    with pytest.raises(SamtuneError, match="itself a confirmation"):
        plan(folder, begun, "again", Wanted())


def test_on_validation_images_too_the_last_epoch_counts_and_the_search_chooses(
    searched: StudyFolder,
) -> None:
    found = _confirmed(searched, top=2, with_validation=1)
    folder = StudyFolder.open(searched.root.parent, "tiny-confirm")
    study = Study(folder, folder.config())
    assert all(t.config.training.with_validation and t.select == "last" for t in study.trials)
    assert {s.epoch for s in held_out_scores(folder).trials.values()} == {2, 3, 4}
    assert (found.chosen, found.with_validation) == ("t0002", True)
    assert found.rows[0].val_mean is None
    joined = load_dataset("digits").with_validation()
    assert (len(joined.train), len(joined.val)) == (1497, 297)
    assert joined.mean == load_dataset("digits").mean
    trial = study.trial("t0001")
    state = set_up(trial.config, joined, CPU)
    by_hand = [r.metrics["train_loss"] for r in train(state, trial.config, joined, CPU)]
    assert [e.metrics["train_loss"] for e in trial.epochs] == by_hand


def test_no_search_may_train_on_validation_images(tmp_path: Path) -> None:
    wrong = FILE.replace("epochs: 2", "epochs: 2, with_validation: true")
    with pytest.raises(StudyFileError, match="with_validation: is for `samtune confirm"):
        check_study(parse_yaml(wrong, "tiny.yaml"), tmp_path)


def test_an_edited_plan_is_refused(searched: StudyFolder, tmp_path: Path) -> None:
    folder = _begun(searched)
    _run(folder, folder.config(), epochs=3)
    path = folder.root / "study.yaml"
    path.write_text(path.read_text().replace("sam.rho: 0.4", "sam.rho: 0.5"))
    with pytest.raises(SamtuneError, match="has no run with the settings of t0001 any more"):
        folder.checked_config([], tmp_path)


# --- the lock


CPU = torch.device("cpu")


def test_the_test_split_is_locked_for_everybody_else() -> None:
    data = load_dataset("digits")
    with pytest.raises(RuntimeError, match="`samtune confirm` reads it, once"):
        data.open_test()
    with unlocked_test_split():
        assert len(data.open_test()) == 300
    with pytest.raises(RuntimeError, match="is locked"):
        data.open_test()


def test_one_function_in_samtune_unlocks_the_test_split_and_one_module_calls_it() -> None:
    def mentions(path: Path, name: str) -> bool:
        nodes = ast.walk(ast.parse(path.read_text()))
        return any(
            (isinstance(n, ast.Name) and n.id == name)
            or (isinstance(n, ast.Attribute) and n.attr == name)
            for n in nodes
        )

    sources = {p.relative_to(SAMTUNE).as_posix(): p for p in SAMTUNE.rglob("*.py")}
    unlock = {name for name, p in sources.items() if mentions(p, "unlocked_test_split")}
    assert unlock == {"study/held_out.py"}
    open_it = {name for name, p in sources.items() if mentions(p, "open_test")}
    inside = {"data/splits.py", "data/lock.py", "data/__init__.py", "data/digits_segmentation.py"}
    assert open_it - inside == {"study/held_out.py"}
    readers = {name for name, p in sources.items() if mentions(p, "read_test")}
    assert readers == {"tuning/confirm.py"}


# --- with Ray


@pytest.mark.ray
@pytest.mark.parametrize("in_one_command", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_study_is_run_and_confirmed_and_again_without_training(
    tmp_path: Path, mlflow_here: Path, local_ray: None, in_one_command: bool
) -> None:
    import mlflow

    (tmp_path / "my_linear.py").write_text(PLUGIN)
    text = FILE.replace("confirm_linear", "my_linear").replace("[0.0, 1.0]", "[0.1, 1.0]")
    alone = "trials: 1, resources: {cpus: 2}, register_model: false, report: false"
    text = text.replace("trials: 4", alone)
    text = text.replace("epochs: 2", "epochs: 1")
    (tmp_path / "tiny.yaml").write_text(text + "plugins: [my_linear]\n")
    if in_one_command:
        ran = samtune_here("run", "tiny.yaml", "--confirm", cwd=tmp_path)
    else:
        config = read_study(tmp_path / "tiny.yaml")
        _run(StudyFolder.create(tmp_path / "samtune_studies", config), config)
        ran = samtune_here("confirm", "tiny", "--plugin", "my_linear", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    verdict = ran.stdout.strip().splitlines()[-1]
    assert "on 300 test images it never saw" in verdict
    ray = StudyFolder.open(tmp_path / "samtune_studies", "tiny-confirm")
    study = Study(ray, ray.config())
    assert [t.state for t in study.trials] == ["finished"] * 15

    again = samtune_here("confirm", "tiny", "--plugin", "my_linear", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert json.loads(again.stdout)["verdict"] == verdict
    shown = samtune_here("show", "tiny", "--json", cwd=tmp_path)
    assert json.loads(shown.stdout)["confirmations"] == {"tiny-confirm": verdict}
    refused = samtune_here("resume", "tiny-confirm", "--plugin", "my_linear", cwd=tmp_path)
    assert "go on with `samtune confirm tiny --plugin my_linear`" in refused.stderr

    client = mlflow.MlflowClient(f"sqlite:///{mlflow_here}")
    experiment = client.get_experiment_by_name("tiny-confirm")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    assert len(runs) == 16
    (parent,) = (r for r in runs if "samtune.verdict" in r.data.tags)
    assert parent.data.tags["samtune.verdict"] == verdict
    assert "gain_at_equal_epochs" in parent.data.metrics
    assert not client.search_registered_models("name = 'tiny-confirm'")
