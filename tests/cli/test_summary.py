"""What `samtune run` ends with: what was found, and no gain that nobody has measured."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from samtune.cli.console import say
from samtune.cli.summary import print_summary
from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.study import Study, StudyFolder
from samtune.study.journal import Entry, Journal
from samtune.study.trial_folder import Outcome

Make = Callable[..., StudyConfig]
ALONE = {"sam.rho": 0.0}


def _summary(
    folder: StudyFolder, config: StudyConfig, *trials: tuple[dict[str, Any], list[float]]
) -> str:
    for number, (values, scores) in enumerate(trials):
        trial = folder.trial(f"t{number:04d}")
        trial.hand_out(record_of(config, trial.key, values), 1)
        for epoch, score in enumerate(scores, 1):
            entry = Entry(1, 1, epoch, {"val_accuracy": score}, 0.1, 0, "state", "0")
            Journal(trial.journal).append(entry)
        trial.end(Outcome("finished", len(scores)), 1)
    out = io.StringIO()
    print_summary(Console(file=out, width=200, no_color=True), Study(folder, config))
    return out.getvalue()


def test_a_baseline_of_other_settings_is_named_so_and_no_gain_is_claimed(
    study_folder: StudyFolder, study_config: Make
) -> None:
    best = {"sam.rho": 0.4, "optimizer.lr": 0.2}
    said = _summary(study_folder, study_config(), (ALONE, [0.6, 0.7]), (best, [0.9]))
    assert (
        "Best: t0001, rho 0.4, best val_accuracy 0.9000; sgd alone has 0.7000 with lr 0.1, after 2 "
        "epochs, not 1. Each is of one seed"
    ) in said
    assert "samtune confirm tiny" in said
    assert "+0.2" not in said.partition("Each is of one seed")[0]
    assert "where 0.3395 may be chance" in said  # 0.9 and 0.7 of 10 images


def test_a_baseline_of_the_same_settings_needs_no_such_words(
    study_folder: StudyFolder, study_config: Make
) -> None:
    best = {"sam.rho": 0.4, "optimizer.lr": 0.1}
    said = _summary(study_folder, study_config(), (ALONE, [0.7]), (best, [0.9]))
    assert "sgd alone has 0.7000. Each is of one seed" in said


def test_where_no_trial_beats_the_baseline_there_is_nothing_to_confirm(
    study_folder: StudyFolder, study_config: Make
) -> None:
    worse = {"sam.rho": 0.4, "optimizer.lr": 0.1}
    said = _summary(study_folder, study_config(), (ALONE, [0.7]), (worse, [0.6]))
    assert "No trial with SAM came above sgd alone (rho = 0, as under trial:)" in said
    assert "samtune confirm" not in said


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_sentence_breaks_between_words_on_a_terminal_and_is_a_line_in_a_pipe(
    is_terminal: bool,
) -> None:
    out = io.StringIO()
    sentence = "From 0.44 to 0.51 nothing better can be told."
    console = Console(file=out, width=20, force_terminal=is_terminal, highlight=False)
    say(console, sentence)
    broken = ["From 0.44 to 0.51", "nothing better can", "be told."]
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert lines == (broken if is_terminal else [sentence])
