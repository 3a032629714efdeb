"""A tuned baseline: a study beside the search, made from it, and the same whatever is killed."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from samtune.analysis import answer
from samtune.analysis.tuned import score_alone, tuned_in_words
from samtune.analysis.warnings import warnings_of
from samtune.cli.show import study_json
from samtune.config.baseline import baseline_study, without_sam
from samtune.config.schema import StudyConfig
from samtune.config.study_file import check_study, read_study, to_yaml
from samtune.config.yaml_reader import parse_yaml
from samtune.errors import SamtuneError, StudyFileError
from samtune.study.folder import StudyFolder
from samtune.study.study import Study, open_study
from samtune.study.trial_run import run_trial
from samtune.tracking.description import description
from samtune.tuning.baseline import Tuning, check_free, tuning_of
from samtune.tuning.confirm import Wanted, conclude, plan
from samtune.tuning.run import Silent
from samtune.tuning.search import Search
from tests.commands import samtune_here, start_samtune
from tests.faults.oracle import accounts
from tests.synthetic import Run, write_study
from tests.tuning import test_confirm  # registers `confirm_linear`

FILE = test_confirm.FILE.replace("scheduler: none", "baseline: tuned, scheduler: none")
Write = Callable[..., Study]


def _config(*replacements: tuple[str, str]) -> StudyConfig:
    text = FILE
    for old, new in replacements:
        assert old in text, old
        text = text.replace(old, new)
    return check_study(parse_yaml(text, "tiny.yaml"), Path.cwd())


def test_the_baseline_draws_what_the_search_does_but_sam() -> None:
    config = _config(("trials: 4", "trials: 4, target: 0.9, warm_start: [other], seed: 7"))
    tuned = baseline_study(config, "1", 3)
    assert list(tuned.search_space) == ["optimizer.lr"]
    assert tuned.search_space["optimizer.lr"] == config.search_space["optimizer.lr"]
    assert tuned.trial.sam.rho == 0.0
    assert tuned.trial.optimizer == config.trial.optimizer
    assert tuned.trial.training == config.trial.training
    assert (tuned.name, tuned.study.trials, tuned.study.baseline) == ("tiny-baseline", 3, False)
    assert (tuned.study.sampler, tuned.study.scheduler, tuned.study.seed) == (
        config.study.sampler,
        config.study.scheduler,
        7,
    )
    assert (tuned.study.target, tuned.study.warm_start) == (None, [])


def test_a_conditions_on_sam_hold_as_for_the_base_trial() -> None:
    lr = "optimizer.lr: {float: [0.01, 0.5], log: true}"
    both = (
        "optimizer.lr:\n    - {float: [0.01, 0.5], log: true, when: {sam.every: [1, 2]}}\n"
        "    - {float: [0.1, 0.9], when: {sam.every: 4}}"
    )
    config = _config((lr, both))
    (left,) = without_sam(config.search_space, config.trial)["optimizer.lr"]
    assert (left.bounds, left.when) == ((0.01, 0.5), None)  # type: ignore[union-attr]


def test_what_was_tried_first_is_tried_first_without_sam() -> None:
    first = "try_first: [{sam.rho: 0.1}, {sam.rho: 0.2, optimizer.lr: 0.1}, {optimizer.lr: 0.1}], "
    config = _config(("study: {", "study: {" + first))
    assert baseline_study(config, "1", 4).study.try_first == [{"optimizer.lr": 0.1}]


def test_a_folders_copy_says_whose_baseline_it_is(tmp_path: Path) -> None:
    config = baseline_study(_config(), "1", 4)
    (tmp_path / "copy.yaml").write_text(to_yaml(config))
    assert read_study(tmp_path / "copy.yaml") == config


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            ("  optimizer.lr: {float: [0.01, 0.5], log: true}\n", ""),
            "study.baseline: tuned has nothing to tune: all that is searched is SAM's own. Search "
            "one of the optimizer's settings, too, such as optimizer.lr",
        ),
        (("name: tiny", f"name: {'n' * 60}"), "name: is too long: its tuned baseline"),
        (("baseline: tuned", "baseline: tuend"), "got 'tuend'. Did you mean 'tuned'?"),
        (("baseline: tuned", "baseline: 1"), "must be true, false or tuned, got 1"),
    ],
)
def test_what_cannot_be_tuned_is_refused_with_what_would_do(
    change: tuple[str, str], sentence: str
) -> None:
    with pytest.raises(StudyFileError) as error:
        _config(change)
    assert sentence in str(error.value)


# --- both halves, as Ray runs them, in this process


def _run(folder: StudyFolder, config: StudyConfig, epochs: float = math.inf) -> Study:
    return test_confirm._run(folder, config, epochs=epochs)


def _tuning(search: Study) -> Tuning:
    found = tuning_of(search)
    assert found is not None
    return found


def _whole(storage: Path, *kills: float) -> tuple[Study, Study]:
    """Both halves to their end, where each session ends for good after so many epochs."""
    folder = StudyFolder.create(storage, _config())
    sessions = iter(kills)
    while (search := _run(folder, folder.config(), next(sessions, math.inf))).left:
        pass
    while (tuning := _tuning(search)).to_run():
        if tuning.before is None:
            StudyFolder.create(storage, tuning.config)
            continue
        _run(tuning.before.folder, tuning.config, next(sessions, math.inf))
    assert tuning.before is not None
    return search, tuning.before


def test_killed_in_either_half_both_come_to_the_same_whole(tmp_path: Path) -> None:
    search, tuned = _whole(tmp_path / "whole")
    assert [len(s.trials) for s in (search, tuned)] == [5, 4]
    assert {t.config.sam.rho for t in tuned.trials} == {0.0}
    assert all(t.state == "finished" for t in tuned.trials)
    for_again, tuned_again = _whole(tmp_path / "killed", 3, 1, 4, 2, 3, 1)
    assert tuned_again.session > tuned.session
    assert accounts(for_again) == accounts(search)
    assert accounts(tuned_again) == accounts(tuned)


def test_a_search_that_is_extended_extends_its_baseline(tmp_path: Path) -> None:
    search, tuned = _whole(tmp_path)
    more = search.config.study.model_copy(update={"trials": 6})
    config = search.config.model_copy(update={"study": more})
    search.folder.save_config(config, 9)
    extended = _run(search.folder, config)
    tuning = _tuning(extended)
    assert (tuning.to_run(), tuning.config.study.trials) == (2, 6)
    after = _run(tuned.folder, tuning.config)
    assert accounts(tuned).items() <= accounts(after).items()
    assert after.left == 0


def test_a_change_of_the_search_that_leaves_out_the_baselines_trials_is_refused(
    tmp_path: Path,
) -> None:
    search, _ = _whole(tmp_path)
    narrow = _config(("[0.01, 0.5], log: true", "[0.4999, 0.5]"))
    with pytest.raises(SamtuneError, match=r"(?s)study .tiny-baseline. has trials.*leaves out t0"):
        tuning_of(Study(search.folder, narrow))


def test_another_study_of_its_name_is_left_alone(tmp_path: Path) -> None:
    search, tuned = _whole(tmp_path / "one")
    other = tmp_path / "one" / "other"
    with pytest.raises(SamtuneError, match="exists in"):
        check_free(tmp_path / "one", _config())
    manifest = json.loads((search.folder.root / "manifest.json").read_text())
    manifest["study_id"] = "0"
    (search.folder.root / "manifest.json").write_text(json.dumps(manifest))
    anew = Study(StudyFolder(search.folder.root), search.config)
    assert anew.tuned_baseline is None
    with pytest.raises(SamtuneError, match="holds another study"):
        tuning_of(anew)
    assert not other.exists()
    assert tuned.folder.root.exists()


def test_a_confirmation_has_the_tuned_baseline_at_equal_epochs(tmp_path: Path) -> None:
    search, tuned = _whole(tmp_path)
    config = plan(search.folder, search.config, "tiny-confirm", Wanted(top=1, seeds=2))[1]
    assert config.confirm is not None
    assert config.confirm.tuned is not None
    assert tuned.best is not None
    assert config.confirm.tuned.settings == {"sam.rho": 0.0, **tuned.best.values}
    folder = StudyFolder.create(tmp_path, config)
    found = conclude(search.folder, _run(folder, folder.config()))
    baselines = found.rows[0].baselines
    last = baselines[-1]
    assert [b.equal for b in baselines][:2] == ["equal epochs", "equal compute"]
    assert (last.equal, last.epochs) == ("equal epochs when tuned by 4 trials", 2)
    study = Study(folder, folder.config())
    ran = [study.trial(key) for key in last.trials]
    assert [t.config.optimizer.params["lr"] for t in ran] == [tuned.best.values["optimizer.lr"]] * 2
    assert {t.config.sam.rho for t in ran} == {0.0}
    assert "at equal epochs when tuned by 4 trials" in found.verdict
    assert found.tuned.endswith(f": {tuned.best.key} of tiny-baseline")
    with pytest.raises(SamtuneError, match="is a tuned baseline: name the study that it is of"):
        plan(tuned.folder, tuned.config, "again", Wanted())


def test_without_its_tuned_baseline_a_search_is_not_confirmed(tmp_path: Path) -> None:
    folder = StudyFolder.create(tmp_path, _config())
    search = _run(folder, folder.config())
    for sessions in (0, 3):
        if sessions:
            tuning = _tuning(search)
            _run(StudyFolder.create(tmp_path, tuning.config), tuning.config, epochs=sessions)
        with pytest.raises(SamtuneError, match="baseline is not tuned yet.*samtune resume tiny"):
            plan(folder, search.config, "tiny-confirm", Wanted())


# --- what is said of it, from journals written by hand


def _written(storage: Path, ends: tuple[float, ...], lrs: tuple[float, ...]) -> Study:
    """A search whose best is 0.9, and a tuned baseline with these scores."""
    config = _config(("confirm_linear", "wide_resnet, depth: 10"), ("trials: 4", "trials: 2"))
    runs = [
        Run({"sam.rho": rho, "sam.every": 1, "optimizer.lr": 0.1}, [0.5, end])
        for rho, end in ((0.3, 0.9), (0.5, 0.8))
    ]
    search = write_study(storage, config, runs, baseline=[0.5, 0.6])
    tuned = baseline_study(config, search.folder.study_id or "", len(ends))
    alone = [Run({"optimizer.lr": lr}, [0.4, end]) for lr, end in zip(lrs, ends, strict=True)]
    write_study(storage, tuned, alone)
    return Study(search.folder, config)


def test_what_tuning_came_to_is_said_everywhere(tmp_path: Path) -> None:
    study = _written(tmp_path, (0.7, 0.75), (0.2, 0.05))
    sentence = (
        "Tuned by 2 trials of its own, sgd alone has best val_accuracy 0.7500 with lr 0.05 (t0002 "
        "of tiny-baseline)."
    )
    assert tuned_in_words(study) == sentence
    assert sentence in description(study)
    told: dict[str, Any] = study_json(study)["tuned_baseline"]
    assert (told["study"], told["best_trial"], told["score"]) == ("tiny-baseline", "t0002", 0.75)
    assert score_alone(study) == 0.75


def test_a_baseline_that_wins_once_tuned_is_no_gain(tmp_path: Path) -> None:
    study = _written(tmp_path, (0.7, 0.95), (0.2, 0.05))
    assert tuned_in_words(study).endswith("of tiny-baseline), above every trial with SAM.")
    assert "small_split" not in [w.kind for w in warnings_of(study)]


def test_a_tuned_baseline_at_the_end_of_its_range_is_warned_of(tmp_path: Path) -> None:
    study = _written(tmp_path, (0.7, 0.75), (0.2, 0.0101))
    edges = [w.sentence for w in warnings_of(study) if w.kind == "edge"]
    assert any(
        line.startswith("In tiny-baseline, optimizer.lr: the best value, 0.0101,") for line in edges
    )


def test_what_is_kept_of_the_answer_holds_for_this_very_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samtune.study.index.SETTLED_NS", -1)  # all was written long ago
    study = _written(tmp_path, (0.7, 0.75), (0.2, 0.05))
    assert "edge" not in [w.kind for w in answer(study).warnings]
    shutil.rmtree(tmp_path / "tiny-baseline")
    config = baseline_study(study.config, study.folder.study_id or "", 2)
    alone = [Run({"optimizer.lr": 0.0101}, [0.4, 0.75])] * 2
    write_study(tmp_path, config, alone)
    again = Study(study.folder, study.config)
    assert "edge" in [w.kind for w in answer(again).warnings]


def test_a_gain_is_held_against_the_better_baseline(tmp_path: Path) -> None:
    """Of 20 images the error of 0.9 - 0.6 is 0.25 (95 %), and that of 0.9 - 0.75 is 0.23."""
    study = _written(tmp_path, (0.7, 0.75), (0.2, 0.05))
    (warning,) = (w for w in warnings_of(study) if w.kind == "small_split")
    assert "+0.1500" in warning.sentence


# --- with Ray


@pytest.fixture
def workplace(tmp_path: Path, mlflow_here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study file of one worker and its plugin, as the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_linear.py").write_text(test_confirm.PLUGIN)
    text = FILE.replace("confirm_linear", "my_linear").replace("[0.0, 1.0]", "[0.1, 1.0]")
    cpus = f"resources: {{cpus: {os.cpu_count()}}}, register_model: false, report: false"
    text = text.replace("trials: 4", f"trials: 2, {cpus}")
    (tmp_path / "tiny.yaml").write_text(text + "plugins: [my_linear]\n")
    return tmp_path


@pytest.mark.chaos
@pytest.mark.ray
@pytest.mark.parametrize("half", ["tiny", "tiny-baseline"])
def test_killed_in_either_half_the_searchs_name_is_enough_to_go_on(
    workplace: Path, local_ray: None, half: str
) -> None:
    whole = samtune_here("run", "tiny.yaml", "--storage", "whole", cwd=workplace)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    process = start_samtune("run", "tiny.yaml", "training.epochs=2", "--verbose", cwd=workplace)
    assert process.stdout is not None
    lines = iter(process.stdout)
    next(line for line in lines if line.startswith(f"study {half}:"))
    next(line for line in lines if " epoch 1/" in line)
    process.kill()
    process.wait(60)
    again = samtune_here("resume", "tiny", "--plugin", "my_linear", cwd=workplace)
    assert again.returncode == 0, again.stdout + again.stderr
    for name in ("tiny", "tiny-baseline"):
        killed = open_study(name, workplace / "samtune_studies")
        assert accounts(killed) == accounts(open_study(name, workplace / "whole"))
        assert killed.session == (2 if name == half else killed.session)


@pytest.mark.ray
@pytest.mark.parametrize("extended", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_one_command_runs_both_halves_and_resume_extends_both(
    workplace: Path, mlflow_here: Path, local_ray: None, extended: bool
) -> None:
    import mlflow

    ran = samtune_here("run", "tiny.yaml", "--trials", "1", cwd=workplace)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "sgd alone, optimizer.lr tuned as in tiny: 1 trial to run" in ran.stdout
    summary = ran.stdout.partition("study tiny: 2 finished")[2]
    assert "Tuned by 1 trial of its own, sgd alone has best val_accuracy" in summary
    storage = workplace / "samtune_studies"
    refused = samtune_here("resume", "tiny-baseline", "--plugin", "my_linear", cwd=workplace)
    assert "is the baseline of tiny: go on with `samtune resume tiny" in refused.stderr

    if extended:
        extend = ("resume", "tiny", "--trials", "+1", "--plugin", "my_linear", "--json-events")
        more = samtune_here(*extend, cwd=workplace)
        assert more.returncode == 0, more.stdout + more.stderr
        events = [json.loads(line) for line in more.stdout.splitlines()]
        sessions = [(e["study"], e["trials"]) for e in events if e["event"] == "session"]
        assert sessions == [("tiny", 1), ("tiny-baseline", 1)]
        assert events[-1]["tuned_baseline"]["trials"] == 2
    search = StudyFolder.open(storage, "tiny")
    tuned = Study(search, search.config()).tuned_baseline
    assert tuned is not None
    assert [t.state for t in tuned.trials] == ["finished"] * (1 + extended)
    done = samtune_here("resume", "tiny", "--plugin", "my_linear", cwd=workplace)
    assert "There is nothing to do" in done.stdout

    client = mlflow.MlflowClient(f"sqlite:///{mlflow_here}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`samtune.trial` = 'study'")
    assert tuned.best is not None
    assert parent.data.metrics["tuned_baseline_score"] == tuned.best.value
    tuned_by = "2 trials" if extended else "1 trial"
    assert f"Tuned by {tuned_by} of its own" in parent.data.tags["mlflow.note.content"]


@pytest.mark.slow
@pytest.mark.ray
def test_the_baseline_of_a_study_that_was_run_without_is_tuned_later(
    workplace: Path, local_ray: None
) -> None:
    ran = samtune_here("run", "tiny.yaml", "study.baseline=true", "--trials", "1", cwd=workplace)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Tuned by" not in ran.stdout
    later = samtune_here(
        "resume", "tiny", "study.baseline=tuned", "--plugin", "my_linear", cwd=workplace
    )
    assert later.returncode == 0, later.stdout + later.stderr
    assert "changed    study.baseline: true -> tuned" in later.stdout
    assert "optimizer.lr tuned as in tiny: 1 trial to run" in later.stdout
    assert "Tuned by 1 trial of its own" in later.stdout
    study = open_study("tiny", workplace / "samtune_studies")
    assert study.config.study.baseline == "tuned"
    assert len(study.trials) == 2
    back = samtune_here(
        "resume", "tiny", "study.baseline=true", "--plugin", "my_linear", cwd=workplace
    )
    assert "There is nothing to do" in back.stdout
    study = open_study("tiny", workplace / "samtune_studies")
    assert (study.config.study.baseline, study.tuned_baseline) == (True, None)


def test_the_driver_decides_for_the_baseline_as_for_any_study(tmp_path: Path) -> None:
    """A search's own sampler and scheduler: nothing of the session is special."""
    tuned = baseline_study(_config(), "1", 4)
    folder = StudyFolder.create(tmp_path, tuned)
    with folder.session() as number:
        search = Search(folder, tuned, number, Silent())
        key = search.next_trial()
        assert key == "t0001"
        progress = list(run_trial(folder.trial(key), number, device=torch.device("cpu")))
    assert progress[-1].outcome is not None
