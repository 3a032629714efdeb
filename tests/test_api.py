"""samtune from Python: what an opened study offers, and what it looks like."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import samtune
from samtune.api import Study, Trial
from samtune.config.schema import StudyConfig
from samtune.errors import SamtuneError
from samtune.study import Study as Plain
from samtune.study.single import train_single
from tests.synthetic import RHO_ALONE, Run

Make = Callable[..., StudyConfig]
RHOS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9)


def _hill(rho: float) -> list[float]:
    """A curve whose last value is best at rho 0.2."""
    return [0.5, 0.6, 0.9 - abs(rho - 0.2)]


@pytest.fixture
def opened(written: Callable[..., Plain], study_config: Make) -> Study:
    runs = [Run({"sam.rho": rho}, _hill(rho)) for rho in RHOS]
    made = written(study_config(RHO_ALONE, ("trials: 4", "trials: 8")), runs, [0.5, 0.6, 0.7])
    return samtune.open_study(made.name, made.folder.root.parent)


def test_a_study_says_what_it_came_to_in_every_form(opened: Study) -> None:
    assert isinstance(opened.best, Trial)
    assert opened.gain == pytest.approx(0.2)
    assert repr(opened) == (
        "<Study tiny: finished, 9 finished; best t0004, val_accuracy 0.9000; at rho 0.2; "
        "baseline 0.7000, the gain is +0.2000; rho .recommendation says which to take>"
    )
    assert repr(opened.best) == "<Trial t0004: finished>"
    assert "<td style='text-align:left'>finished, 9 finished</td>" in opened._repr_html_()
    console = Console(record=True, width=100)
    console.print(opened)
    assert "0.7000, the gain is +0.2000" in console.export_text()


STORAGES: dict[str, Callable[[str], object]] = {
    "open_study": lambda storage: samtune.open_study("tiny", storage),
    "resume_study": lambda storage: samtune.resume_study("tiny", storage=storage),
    "run_study": lambda storage: samtune.run_study(
        "search_spaces/wrn_rho.yaml", overrides=["name=tiny"], storage=storage
    ),
}


@pytest.mark.parametrize("verb", STORAGES)
def test_a_storage_is_the_address_that_the_command_line_takes(opened: Study, verb: str) -> None:
    with pytest.raises(SamtuneError, match="cannot keep studies at gs://"):
        STORAGES[verb]("gs://bucket/studies")
    there = opened.folder.root.parent.as_uri()
    if verb == "run_study":
        with pytest.raises(SamtuneError, match="exists in"):
            STORAGES[verb](there)
    elif verb == "open_study":
        assert repr(samtune.open_study("tiny", there)) == repr(opened)


def test_what_it_shows_is_text_in_html_too(opened: Study) -> None:
    opened.name = "<script>"
    assert "<script>" not in opened._repr_html_()


def test_once_asked_for_the_recommendation_is_shown(opened: Study) -> None:
    assert opened.recommendation is not None
    assert opened.recommendation.sentence in repr(opened)
    figure = opened.plot_rho()
    assert "recommended rho" in " ".join(str(trace.name) for trace in figure.data)
    assert figure.layout.title.text == "tiny: score against rho"


def test_a_study_without_rho_has_no_plot_of_it(
    written: Callable[..., Plain], study_config: Make
) -> None:
    made = written(study_config(("  sam.rho: {float: [0.01, 1.0], log: true}\n", "")), [])
    opened = samtune.open_study(made.name, made.folder.root.parent)
    assert opened.recommendation is None
    with pytest.raises(SamtuneError, match="was not searched"):
        opened.plot_rho()
    assert repr(opened) == "<Study tiny: interrupted, no trial; rho was not searched>"


def test_a_look_neither_raises_nor_takes_long_where_the_folder_has_gone(opened: Study) -> None:
    shutil.rmtree(opened.folder.root)
    started = time.monotonic()
    assert repr(opened).startswith("<Study tiny: ")
    assert opened._repr_html_()
    assert time.monotonic() - started < 1


def test_before_a_confirmation_there_is_none(opened: Study) -> None:
    assert opened.confirmation is None


def test_a_trials_model_takes_images_as_people_have_them(
    tmp_path: Path, study_config: Make
) -> None:
    for _ in train_single(study_config(), "one", tmp_path):
        pass
    best = samtune.open_study("one", tmp_path).best
    assert best is not None
    model = best.load_model()
    data = samtune.data.load_dataset("digits", label_noise=0.4)
    images = data.val.images.permute(0, 3, 1, 2)
    scores = model(images)
    torch.testing.assert_close(scores, model(images / 255))
    accuracy = (scores.argmax(1) == data.val.targets).float().mean().item()
    assert accuracy == pytest.approx(best.value, abs=0.01)
    assert model.about.study == "one"


def test_a_users_mistake_has_no_traceback_in_a_notebook() -> None:
    error: Any = SamtuneError("there is no study")
    assert error._render_traceback_() == ["samtune: there is no study"]
