"""What was measured of sharpness, as the page and the terminal show it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from samtune.files import write_json
from samtune.report.page import write_page
from samtune.report.parts import Plot, Subject
from samtune.report.plots import MOST_POINTS
from samtune.report.sharpness import notes, rows, sentence, sharpness
from samtune.sharpness import (
    Curvature,
    Landscape,
    Rise,
    Sharpness,
    TrialSharpness,
    Wanted,
    question_of,
)
from samtune.sharpness.landscape import positions
from samtune.study import Study
from tests.report.conftest import BASELINE, config_of, read_page, risen_and_fallen
from tests.synthetic import write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    storage = tmp_path_factory.mktemp("study")
    return write_study(storage, config_of(), risen_and_fallen(), BASELINE)


def trial(key: str, steepness: float, grid: int = 15, **changed: Any) -> TrialSharpness:
    """A bowl: 0.1 + steepness * (a^2 + b^2)."""

    def loss(a: float, b: float = 0.0) -> float:
        return 0.1 + steepness * (a**2 + b**2)

    at = positions(grid)
    found = TrialSharpness(
        trial=key,
        epoch=3,
        is_baseline=key == "t0000",
        rho=0.0 if key == "t0000" else 0.1,
        variant="sam",
        parameters=77_818,
        loss=0.1,
        rises=[
            Rise(0.05, False, 0.01 * steepness, 0.02 * steepness, 0.001),
            Rise(0.5, True, 0.1 * steepness, 0.2 * steepness, None),
        ],
        curvature=Curvature([steepness, steepness / 4], 10 * steepness, 0.5),
        no_curvature="",
        landscape=Landscape(
            [loss(a) for a in positions(41)], [[loss(a, b) for a in at] for b in at]
        ),
    )
    return replace(found, **changed)


def measured(study: Study, *trials: TrialSharpness, grid: int = 15, **asked: Any) -> Sharpness:
    keys = [t.trial for t in trials]
    question = question_of(study, Wanted(trials=keys, grid=grid))
    question = replace(question, rhos=[0.05], adaptive_rhos=[0.5], curvature=True, **asked)
    at = positions(grid)
    where: tuple[Any, ...] = ("digits", "classification", 480, 120, 5, positions(41), at)
    return Sharpness(question, *where, "cpu", 1, {}, [*trials])


def best_of(study: Study) -> str:
    assert study.best is not None
    return study.best.key


def section(study: Study, found: Sharpness, tmp_path: Path) -> Any:
    write_json(study.folder.root / "sharpness.json", asdict(found))
    made = sharpness(Subject(study, None))
    return read_page(write_page(tmp_path / "page.html", "x", "finished", [made]))


def test_a_study_that_was_not_measured_says_how_to(study: Study) -> None:
    (study.folder.root / "sharpness.json").unlink(missing_ok=True)
    [said] = sharpness(Subject(study, None)).parts
    assert "samtune sharpness tiny" in str(said)


def test_both_landscapes_have_the_same_axes_and_colours(study: Study, tmp_path: Path) -> None:
    found = measured(study, trial(best_of(study), 1.0), trial("t0000", 9.0))
    page = section(study, found, tmp_path)
    line, plane = page.figures
    assert [t["name"] for t in line["data"]] == [best_of(study), "t0000 baseline"]
    assert line["data"][1]["y"][0] == pytest.approx(9.1)
    maps = [t for t in plane["data"] if t["type"] == "contour"]
    assert [m["coloraxis"] for m in maps] == ["coloraxis", "coloraxis"]
    # log10 of 0.1 at the weights and of 0.1 + 9 * 2 in the corners
    scale = plane["layout"]["coloraxis"]
    assert (scale["cmin"], scale["cmax"]) == pytest.approx((-1.0, 1.2577), abs=1e-4)
    assert maps[0]["z"][7][7] == pytest.approx(-1.0)
    assert maps[1]["z"][0][14] == pytest.approx(1.2577, abs=1e-4)
    assert maps[0]["contours"] == maps[1]["contours"]
    assert all(plane["layout"][f"{a}axis{n}"]["range"] == [-1, 1] for a in "xy" for n in ("", "2"))


def test_the_table_has_each_measure_of_each_trial(study: Study) -> None:
    found = measured(study, trial(best_of(study), 1.0), trial("t0000", 9.0))
    table = {row[0]: row[1:] for row in rows(found)}
    assert table["trained with rho"] == ["0.1", "0"]
    assert table["rise within rho 0.05"] == ["0.02 +- 0.001", "0.18 +- 0.001"]
    assert table["... by SAM's one step"] == ["0.01", "0.09"]
    assert table["ASAM's rise within rho 0.5"] == ["0.2", "1.8"]
    assert table["largest eigenvalue"] == ["1", "9"]
    assert table["... over the second"] == ["4.00", "4.00"]
    assert table["trace"] == ["10 +- 0.5", "90 +- 0.5"]


def test_the_sentence_counts_what_is_lower_and_claims_no_law(study: Study) -> None:
    best = best_of(study)
    flat = measured(study, trial(best, 1.0), trial("t0000", 9.0))
    assert sentence(flat).startswith(
        f"Around the weights of {best} the loss is flatter than around the baseline's by every "
        "measure here (rise within rho 0.05: 0.02 against 0.18;"
    )
    sharp = measured(study, trial(best, 9.0), trial("t0000", 1.0))
    assert "no flatter than around the baseline's by any measure here" in sentence(sharp)
    curvature = Curvature([20.0], 1.0, 0.1)
    mixed = measured(study, trial(best, 1.0, curvature=curvature), trial("t0000", 9.0))
    assert "by 3 of 4 measures (" in sentence(mixed)
    assert "not by the others (largest eigenvalue: 20 against 9)" in sentence(mixed)
    assert all("not that the model is better" in notes(f)[-1] for f in (flat, sharp, mixed))


def test_what_does_not_compare_is_said(study: Study) -> None:
    other = trial(
        "t0000",
        9.0,
        parameters=5,
        differs_in=["training.label_smoothing"],
        curvature=None,
        no_curvature="its loss differs from one pass to the next",
    )
    said = " ".join(notes(measured(study, trial(best_of(study), 1.0), other)))
    assert "differ in their number of weights" in said
    assert "in training.label_smoothing: its loss is another function" in said
    assert "No Hessian of t0000: its loss differs from one pass to the next." in said
    without = measured(study, trial(best_of(study), 1.0, curvature=None))
    without = replace(without, question=replace(without.question, curvature=False))
    assert "pip install 'samtune[sharpness]'" in " ".join(notes(without))
    assert "largest eigenvalue" not in {row[0] for row in rows(without)}


def test_the_page_says_when_it_is_of_an_older_best(study: Study, tmp_path: Path) -> None:
    found = measured(study, trial("t0001", 1.0), trial("t0000", 9.0))
    page = section(study, found, tmp_path)
    assert f"The best trial is {best_of(study)} by now" in page.text
    current = measured(study, trial(best_of(study), 1.0), trial("t0000", 9.0))
    assert "by now" not in section(study, current, tmp_path).text


def test_no_plot_has_more_points_than_allowed(study: Study, tmp_path: Path) -> None:
    keys = [best_of(study), "t0000", "t0001", "t0002"]
    found = measured(study, *(trial(k, 1.0, grid=31) for k in dict.fromkeys(keys)), grid=31)
    page = section(study, found, tmp_path)
    for figure in page.figures:
        points = [len(t["x"]) * len(t["z"]) if "z" in t else len(t["x"]) for t in figure["data"]]
        assert sum(points) <= MOST_POINTS
    assert re.search(r"The first 2 of \d trials are drawn\.", page.text)


def test_losses_that_are_not_finite_or_zero_are_drawn_around(study: Study) -> None:
    broken = Landscape([0.0, *[1.0] * 39, None], [[None, 1.0], [0.0, 2.0]])
    found = measured(study, trial(best_of(study), 1.0, landscape=broken), grid=2)
    write_json(study.folder.root / "sharpness.json", asdict(found))
    plots = [p for p in sharpness(Subject(study, None)).parts if isinstance(p, Plot)]
    line, plane = (json.loads(p.figure) for p in plots)
    assert line["data"][0]["y"][0] == pytest.approx(1e-6)
    assert line["data"][0]["y"][-1] is None
    assert plane["data"][0]["z"][0][0] is None


def test_a_rise_within_its_own_rho_has_a_row(study: Study) -> None:
    one = trial(best_of(study), 1.0)
    own = replace(one, rises=[*one.rises, Rise(0.7, False, 1.0, 3.0, None)])
    table = {row[0]: row[1:] for row in rows(measured(study, own, trial("t0000", 9.0)))}
    assert table["rise within its own rho"] == ["3 (0.7)", "-"]
