"""Several studies on one page."""

from __future__ import annotations

from pathlib import Path

import pytest

from samtune.analysis.response import response
from samtune.errors import SamtuneError
from samtune.report.compare import write_comparison
from samtune.study import Study
from tests.report.conftest import config_of, read_page
from tests.synthetic import Run, write_study


def _other(tmp_path: Path, *replacements: tuple[str, str]) -> Study:
    config = config_of(("name: tiny", "name: other"), *replacements)
    run = Run({"sam.rho": 0.2, "model.width_factor": 1}, [0.5, 0.6, 0.81])
    return write_study(tmp_path, config, [run], [0.5, 0.6, 0.77])


def test_two_studies_stand_side_by_side(study: Study, tmp_path: Path) -> None:
    page = read_page(write_comparison([study, _other(tmp_path)], tmp_path / "both.html"))
    found = response(study)
    assert found is not None
    assert study.best is not None
    gain = (study.best.value or 0) - 0.7
    assert f"its score {study.best.value:.4f} 0.8100" in page.text
    assert f"difference {gain:+.4f} +0.0400" in page.text
    assert f"recommended rho {found.rho:.2g} -" in page.text
    curves, rho = page.figures
    assert [trace["name"] for trace in curves["data"]] == [
        "tiny, best",
        "tiny, baseline",
        "other, best",
        "other, baseline",
    ]
    assert curves["data"][2]["y"] == [0.5, 0.6, 0.81]
    assert {trace["legendgroup"] for trace in rho["data"]} == {"tiny"}
    assert "other: Too few trials to recommend a rho" in page.text


def test_different_data_are_said_to_be_no_comparison(study: Study, tmp_path: Path) -> None:
    other = _other(tmp_path, ("label_noise: 0.4", "label_noise: 0.2"))
    page = read_page(write_comparison([study, other], tmp_path / "both.html"))
    assert "The studies differ in their data, so their scores do not compare:" in page.text
    assert "tiny on digits (label_noise 0.4, " in page.text
    assert "other on digits (label_noise 0.2, " in page.text


def test_different_metrics_are_refused(study: Study, tmp_path: Path) -> None:
    other = _other(tmp_path, ("study: {", "study: {metric: val_loss, "))
    with pytest.raises(SamtuneError, match="one is judged by val_accuracy, the other by val_loss"):
        write_comparison([study, other])
