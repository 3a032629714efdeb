"""The picture of score against rho: what it draws, and where the study's run shows it."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import mlflow
import pytest

from samtune import tracking
from samtune.analysis.response import response
from samtune.config.schema import StudyConfig
from samtune.study.study import Study
from samtune.tracking.plot import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, score_against_rho
from tests.synthetic import RHO_ALONE, Run, write_study
from tests.tracking.conftest import runs_of

Make = Callable[..., StudyConfig]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def study(tmp_path: Path, study_config: Make) -> Study:
    """Nine rhos with their best at 0.1, the last of which was stopped, and a baseline of 0.7."""
    runs = []
    for i in range(9):
        rho = 10 ** (-2 + i / 4)
        end = 0.9 - 0.2 * math.log10(rho / 0.1) ** 2
        curve = [end - 0.1, end][: 1 if i == 8 else 2]
        runs.append(Run({"sam.rho": rho}, curve, "stopped" if i == 8 else "finished"))
    return write_study(tmp_path, study_config(RHO_ALONE, ("trials: 4", "trials: 9")), runs, [0.7])


def _drawn(study: Study) -> ElementTree.Element:
    found = response(study)
    assert found is not None
    return ElementTree.fromstring(score_against_rho(study, found))


def test_each_trial_is_a_point_at_its_log_rho_and_score(study: Study) -> None:
    points = _drawn(study).findall(f"{SVG}circle")
    assert [point.get("fill") == "white" for point in points] == [False] * 8 + [True]
    across = [float(str(point.get("cx"))) for point in points]
    steps = [b - a for a, b in itertools.pairwise(across)]
    assert steps == pytest.approx([steps[0]] * 8, abs=0.2)  # even on the log scale
    down = [float(str(point.get("cy"))) for point in points]
    assert min(down) == down[4]  # rho 0.1, the best, stands highest
    assert all(LEFT < x < WIDTH - RIGHT for x in across)
    assert all(TOP < y < HEIGHT - BOTTOM for y in down)
    title = points[4].find(f"{SVG}title")
    assert title is not None
    assert title.text == "t0005: rho 0.1, 0.9000, finished"


def test_the_fit_its_plateau_and_the_baseline_are_drawn(study: Study) -> None:
    drawn = _drawn(study)
    (fit,) = drawn.findall(f"{SVG}polyline")
    heights = [float(pair.split(",")[1]) for pair in str(fit.get("points")).split()]
    assert 20 < heights.index(min(heights)) < 40  # of 61 from rho 0.01 to 1
    plateau = drawn.findall(f"{SVG}rect")[1]
    left = float(str(plateau.get("x")))
    best = float(str(drawn.findall(f"{SVG}circle")[4].get("cx")))
    assert left < best < left + float(str(plateau.get("width")))
    words = [text.text for text in drawn.findall(f"{SVG}text")]
    assert {"baseline", "rho", "0.01", "0.1", "1"} <= set(words)
    assert not re.search("nan|inf", ElementTree.tostring(drawn, "unicode"))


def test_one_rho_makes_no_picture(tmp_path: Path, study_config: Make) -> None:
    alone = write_study(tmp_path, study_config(RHO_ALONE), [Run({"sam.rho": 0.1}, [0.5])])
    found = response(alone)
    assert found is not None
    assert score_against_rho(alone, found) == ""


def test_the_studys_description_shows_it(study: Study, uri: str) -> None:
    tracking.sync(study.folder)
    run = runs_of(uri)["study"]
    said = run.data.tags["mlflow.note.content"]
    shown = f"get-artifact?path=score_against_rho.svg&run_uuid={run.info.run_id}"
    assert f"![score against rho]({shown})" in said
    path = mlflow.MlflowClient(uri).download_artifacts(run.info.run_id, "score_against_rho.svg")
    assert len(ElementTree.parse(path).findall(f"{SVG}circle")) == 9
