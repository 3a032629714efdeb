"""What is tried first, what is known from other studies, when nothing more is begun, the audit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from samtune.config.study_file import read_study, to_yaml
from samtune.errors import SamtuneError
from samtune.study.folder import StudyFolder
from samtune.study.journal import Entry, Journal
from samtune.study.study import Study
from samtune.study.trial_folder import Outcome
from samtune.tuning.audit import Audited
from samtune.tuning.run import Silent
from samtune.tuning.scheduler import Asha
from samtune.tuning.search import Search
from samtune.tuning.warm_start import past_studies
from tests.conftest import TINY
from tests.synthetic import RHO_ALONE, Make, Run, write_study
from tests.tuning.test_search import _epoch, _finish

Written = Callable[..., Study]
FIRST = "study: {try_first: [{sam.rho: 0.05}, {sam.rho: 0.2, optimizer.lr: 0.1}], "


def _values(folder: StudyFolder, key: str) -> dict[str, Any]:
    record = folder.trial(key).record()
    assert record is not None
    return record.values


def test_given_settings_are_tried_first_and_the_sampler_draws_the_rest(
    study_folder: StudyFolder, study_config: Make
) -> None:
    config = study_config(("study: {", FIRST))
    search = Search(study_folder, config, 1, Silent())
    assert [search.next_trial() for _ in range(6)][1:-1] == ["t0001", "t0002", "t0003", "t0004"]
    first, second, third = (_values(study_folder, f"t000{i}") for i in (1, 2, 3))
    assert first["sam.rho"] == 0.05
    assert 0.01 <= first["optimizer.lr"] <= 0.5
    assert second == {"sam.rho": 0.2, "optimizer.lr": 0.1}
    assert third["sam.rho"] not in (0.05, 0.2)
    told = search.sampler.study.trials
    assert [t.params["sam.rho"] for t in told[:2]] == [0.05, 0.2]


def test_a_resumed_study_tries_nothing_twice_and_what_was_added(
    study_folder: StudyFolder, study_config: Make
) -> None:
    search = Search(study_folder, study_config(("study: {", FIRST)), 1, Silent())
    assert [search.next_trial() for _ in range(2)] == ["t0000", "t0001"]
    more = FIRST.replace("[{", "[{sam.rho: 0.7}, {")
    again = Search(study_folder, study_config(("study: {", more)), 2, Silent())
    keys = [again.next_trial() for _ in range(5)]
    assert keys == ["t0000", "t0001", "t0002", "t0003", "t0004"]
    assert _values(study_folder, "t0002")["sam.rho"] == 0.7
    assert _values(study_folder, "t0003") == {"sam.rho": 0.2, "optimizer.lr": 0.1}


@pytest.mark.parametrize(
    ("first", "sentence"),
    [
        ("[{sam.rhoo: 0.1}]", "study.try_first.0.sam.rhoo: is not searched. Did you mean"),
        ("[{sam.rho: 0.1}, {sam.rho: 2.0}]", "study.try_first.1.sam.rho: could not be drawn"),
        ("[{sam.rho: 0.1}, 3]", "study.try_first.1: must be a mapping, got 3"),
        ("{sam.rho: 0.1}", "study.try_first: must be a list"),
        ("[{}, {}, {}, {}, {}]", "holds 5 settings, and study.trials is 4"),
        ("[{sam.sigma: 1.0}]", "sam.sigma: depends on sam.variant, which is searched"),
        ("[{sam.sigma: 1.0, sam.variant: sam}]", "its condition does not hold"),
    ],
)
def test_what_cannot_be_tried_is_a_sentence_with_its_line(
    tmp_path: Path, first: str, sentence: str
) -> None:
    conditional = "  sam.variant: {choice: [sam, fsam]}\n  sam.sigma: " + (
        "{float: [0.5, 2.0], when: {sam.variant: fsam}}\n"
    )
    path = tmp_path / "tiny.yaml"
    text = TINY.replace("search_space:\n", "search_space:\n" + conditional)
    path.write_text(text.replace("study: {", f"study: {{try_first: {first}, "))
    with pytest.raises(SamtuneError) as error:
        read_study(path)
    assert sentence in str(error.value)
    assert "line 14, study.try_first" in str(error.value)


def test_a_studys_own_copy_keeps_what_is_tried_first(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    space = "  training.ema_decay: {choice: [null, 0.9]}\nstudy: {"
    first = "try_first: [{training.ema_decay: null, sam.rho: 0.1}], warm_start: [a, b.c], "
    path.write_text(TINY.replace("study: {", space + first))
    config = read_study(path)
    (tmp_path / "copy.yaml").write_text(to_yaml(config))
    assert read_study(tmp_path / "copy.yaml") == config
    assert config.study.try_first == [{"training.ema_decay": None, "sam.rho": 0.1}]


def _past(storage: Path, config: Any, runs: list[Run]) -> Study:
    return write_study(storage, config.model_copy(update={"name": "past"}), runs, [0.9, 0.9, 0.9])


def test_the_sampler_knows_the_matching_trials_of_other_studies(
    study_folder: StudyFolder, study_config: Make
) -> None:
    storage = study_folder.root.parent
    runs = [
        Run({"sam.rho": 0.3, "optimizer.lr": 0.1}, [0.5, 0.6, 0.7]),
        Run({"sam.rho": 0.2, "optimizer.lr": 0.2}, [0.4], "stopped"),
        Run({"sam.rho": 0.9, "optimizer.lr": 0.2}, [0.4], "diverged"),
        Run({"sam.rho": 0.1, "optimizer.lr": 0.1}, [0.4], "failed"),
    ]
    _past(storage, study_config(), runs)
    warm = ("study: {", "study: {warm_start: [past], ")
    narrow = ("float: [0.01, 1.0]", "float: [0.01, 0.5]")
    config = study_config(warm, narrow)
    assert [str(p) for p in past_studies(config, storage)] == ["2 of 3 trials of past"]
    search = Search(study_folder, config, 1, Silent())
    told = search.sampler.study.trials
    assert [t.params for t in told] == [runs[0].values, runs[1].values]
    assert [t.intermediate_values for t in told] == [{1: 0.5, 2: 0.6, 3: 0.7}, {1: 0.4}]
    assert (told[0].state.name, told[0].value, told[1].state.name) == ("COMPLETE", 0.7, "PRUNED")
    assert search.to_run == 5
    assert search.next_trial() == "t0000"
    assert search.next_trial() == "t0001"
    # No rung of this study has seen them: the first of its own to arrive goes on.
    assert _epoch(search, study_folder, "t0001", 1, 0.1)
    study = Study(study_folder, config)
    assert [t.key for t in study.ranking] == ["t0001"]


@pytest.mark.parametrize("fate", ["grown", "removed", "file damaged"])
def test_a_resumed_study_learns_from_what_it_had_learned_from(
    study_folder: StudyFolder, study_config: Make, fate: str
) -> None:
    storage = study_folder.root.parent
    past = _past(storage, study_config(), [Run({"sam.rho": 0.3, "optimizer.lr": 0.1}, [0.5])])
    config = study_config(("study: {", "study: {warm_start: [past], "))
    Search(study_folder, config, 1, Silent())
    if fate == "removed":
        shutil.rmtree(past.folder.root)
    elif fate == "grown":
        shutil.rmtree(past.folder.root)
        _past(storage, study_config(), [Run({"sam.rho": 0.9, "optimizer.lr": 0.2}, [0.9])] * 2)
    else:
        (study_folder.root / "warm_start.json").write_text("[{")
    again = Search(study_folder, config, 2, Silent())
    (told,) = again.sampler.study.trials
    assert (told.params["sam.rho"], told.value, told.intermediate_values) == (0.3, 0.5, {1: 0.5})
    aside = study_folder.root / "warm_start.json.damaged-1"
    assert (fate == "file damaged") is (aside.exists() and aside.read_text() == "[{")


def test_a_setting_that_was_fixed_there_counts_where_it_can_be_drawn_here(
    study_folder: StudyFolder, study_config: Make
) -> None:
    storage = study_folder.root.parent
    _past(storage, study_config(RHO_ALONE), [Run({"sam.rho": 0.3}, [0.7])])
    config = study_config(("study: {", "study: {warm_start: [past], "))
    (trial,) = past_studies(config, storage)[0].trials
    assert trial.values == {"sam.rho": 0.3, "optimizer.lr": 0.1}  # the base trial's learning rate


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("gone", (), "No study named 'gone'"),
        ("tiny", (), "tiny is this study"),
        ("past", ("study: {", "study: {metric: val_loss, "), "another study.metric"),
        ("past", ("study: {", "study: {select: last, "), "another study.select"),
        ("past", (", label_noise: 0.4", ""), "another trial.dataset"),
    ],
)
def test_scores_that_do_not_compare_start_nothing(
    study_folder: StudyFolder, study_config: Make, name: str, change: Any, sentence: str
) -> None:
    _past(study_folder.root.parent, study_config(), [])
    changes = [change] if change else []
    config = study_config(*changes, ("study: {", f"study: {{warm_start: [{name}], "))
    with pytest.raises(SamtuneError, match=sentence):
        Search(study_folder, config, 1, Silent())


def test_once_the_target_is_reached_only_what_has_begun_goes_on(
    study_folder: StudyFolder, study_config: Make
) -> None:
    config = study_config(("study: {", "study: {target: 0.9, select: last, "))
    search = Search(study_folder, config, 1, Silent())
    assert [search.next_trial() for _ in range(3)] == ["t0000", "t0001", "t0002"]
    assert _epoch(search, study_folder, "t0000", 1, 0.99)  # the baseline reaches no target
    for epoch, value in ((1, 0.95), (2, 0.95), (3, 0.92)):
        assert _epoch(search, study_folder, "t0001", epoch, value)
    assert not search.budget.spent
    _finish(search, study_folder, "t0001", 3)
    assert search.next_trial() is None
    again = Search(study_folder, config, 2, Silent())
    assert again.to_run == 2
    assert [again.next_trial() for _ in range(3)] == ["t0000", "t0002", None]
    more = Search(study_folder, study_config(("study: {", "study: {select: last, ")), 3, Silent())
    assert more.to_run == 4


def test_a_trial_that_was_stopped_reaches_no_target_that_the_last_epoch_is_to_reach(
    study_folder: StudyFolder, study_config: Make
) -> None:
    config = study_config(("study: {", "study: {target: 0.9, select: last, baseline: false, "))
    search = Search(study_folder, config, 1, Silent())
    assert [search.next_trial() for _ in range(2)] == ["t0001", "t0002"]
    assert _epoch(search, study_folder, "t0001", 1, 0.95)
    assert not _epoch(search, study_folder, "t0002", 1, 0.92)
    assert not search.budget.spent
    assert search.next_trial() == "t0003"


def test_hours_of_training_are_counted_over_sessions(
    study_folder: StudyFolder, study_config: Make
) -> None:
    config = study_config(("study: {", "study: {device_budget: 0.00008, baseline: false, "))
    search = Search(study_folder, config, 1, Silent())
    search.next_trial()
    _epoch(search, study_folder, "t0001", 1, 0.9)  # 0.1 s each; 0.288 s are the budget
    _epoch(search, study_folder, "t0001", 2, 0.9)
    again = Search(study_folder, config, 2, Silent())
    assert again.next_trial() == "t0001"
    _epoch(again, study_folder, "t0001", 3, 0.9)
    assert again.next_trial() is None


def test_gradients_are_counted_from_the_journals_over_sessions(
    study_folder: StudyFolder, study_config: Make
) -> None:
    config = study_config(("study: {", "study: {gradient_budget: 3000, baseline: false, "))

    def epoch(search: Search, key: str, number: int, gradients: float) -> None:
        metrics = {"val_accuracy": 0.9, "gradient_evaluations": gradients}
        entry = Entry(1, 1, number, metrics, 0.1, 0, "state", "0")
        Journal(study_folder.trial(key).journal).append(entry)
        assert search.on_epoch(key, number, metrics, 0.1, replayed=False)

    search = Search(study_folder, config, 1, Silent())
    assert search.next_trial() == "t0001"
    epoch(search, "t0001", 1, 1600)
    again = Search(study_folder, config, 2, Silent())  # the driver was killed
    assert (again.to_run, again.next_trial(), again.next_trial()) == (4, "t0001", "t0002")
    epoch(again, "t0001", 2, 1600)
    assert again.next_trial() is None
    study = Study(study_folder, config)
    assert (study.left, study.budget.spent[:21]) == (2, "study.gradient_budget")
    more = config.study.model_copy(update={"gradient_budget": 4000})
    config = config.model_copy(update={"study": more})
    assert Search(study_folder, config, 3, Silent()).to_run == 4


def test_an_audited_trial_runs_on_and_moves_no_rung() -> None:
    asha = Asha([1, 2], 2, "max")
    rule = Audited(asha, 0.5)
    assert rule.goes_on("t0001", 1, 0.5)
    assert rule.goes_on("t0002", 1, 0.1)  # the second of two is audited
    assert not rule.goes_on("t0003", 1, 0.2)
    assert rule.goes_on("t0002", 2, 0.05)
    assert asha.rungs[2] == {}


def test_a_study_spares_its_audited_trials(study_folder: StudyFolder, study_config: Make) -> None:
    config = study_config(("study: {", "study: {audit: 0.5, baseline: false, "))
    search = Search(study_folder, config, 1, Silent())
    for _ in range(3):
        search.next_trial()
    assert _epoch(search, study_folder, "t0001", 1, 0.9)
    assert _epoch(search, study_folder, "t0002", 1, 0.1)
    assert not _epoch(search, study_folder, "t0003", 1, 0.2)
    again = Search(study_folder, config, 2, Silent())
    assert [again.next_trial() for _ in range(2)] == ["t0001", "t0002"]
    assert _epoch(again, study_folder, "t0002", 2, 0.1)
    assert study_folder.trial("t0003").outcome() == Outcome("stopped", 1)
