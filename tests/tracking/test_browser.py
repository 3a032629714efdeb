"""MLflow's own pages of a study, in a real browser."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from samtune import tracking
from samtune.config.schema import StudyConfig
from samtune.study.study import Study
from samtune.tracking.pages import Pages, pages_of
from samtune.tracking.store import store_of
from tests.browser import Opened, needs_browser, open_in_browser
from tests.synthetic import Run, write_study

Make = Callable[..., StudyConfig]
pytestmark = [needs_browser, pytest.mark.slow]
RHOS = (0.02, 0.05, 0.1, 0.3, 0.9)


@pytest.fixture
def study(tmp_path: Path, study_config: Make) -> Study:
    """Five trials that rise and fall over rho, one of which was stopped, and a baseline."""
    runs = []
    for rho in RHOS:
        end = 0.9 - 0.2 * math.log10(rho / 0.1) ** 2
        curve = [end - 0.2, end - 0.1, end][: 1 if rho == 0.9 else 3]
        state = "stopped" if rho == 0.9 else "finished"
        runs.append(Run({"sam.rho": rho, "optimizer.lr": 0.1 + rho / 10}, curve, state))
    return write_study(tmp_path, study_config(("trials: 4", "trials: 5")), runs, [0.5, 0.6, 0.7])


@pytest.fixture
def pages(study: Study, direct: str, monkeypatch: pytest.MonkeyPatch) -> Pages:
    """Where a real MLflow server shows it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", direct)
    tracking.sync(study.folder)
    return pages_of(study, store_of(study.folder.root))


def _assert_no_error(opened: Opened) -> None:
    wrong = re.compile("Uncaught|TypeError|shared view")  # what MLflow's libraries advise is theirs
    assert not [line for line in opened.console if wrong.search(line)]
    assert "Error loading shared view" not in opened.html


def _names(study: Study) -> list[str]:
    trials = [trial for trial in study.trials if not trial.is_baseline]
    return [f"{t.key} rho={t.values['sam.rho']:.3g}" for t in trials]


def test_the_shared_view_has_every_trial_and_draws_its_charts(
    study: Study, pages: Pages, direct: str, tmp_path: Path
) -> None:
    opened = open_in_browser(f"{direct}{pages.charts}", tmp_path / "profile")
    _assert_no_error(opened)
    for name in (*_names(study), "t0000 baseline"):
        assert name in opened.html
    assert "The study" in opened.html
    curves, by_rho, by_lr, parallel = opened.html.split(
        'data-testid="experiment-view-compare-runs-card"'
    )[1:5]
    assert curves.count("js-line") >= len(study.trials) - 1  # what was stopped at once is a point
    for scatter, setting in ((by_rho, "sam.rho"), (by_lr, "optimizer.lr")):
        assert setting in scatter
        assert len(re.findall(r'<path class="point\b', scatter)) == len(study.trials)
    assert 'class="parcoords"' in parallel


def test_the_compare_page_has_the_best_trials_and_draws_their_plot(
    study: Study, pages: Pages, direct: str, tmp_path: Path
) -> None:
    opened = open_in_browser(f"{direct}{pages.compare}", tmp_path / "profile")
    _assert_no_error(opened)
    assert "Comparing 5 Runs from 1 Experiment" in opened.html
    for trial in study.ranking[:5]:
        assert f"{trial.key} " in opened.html
    assert "sam.rho" in opened.html
    # Of the metrics they share it draws the first by name, which must be one to go by.
    assert re.search(r"parcoords.*gain_over_baseline|gain_over_baseline.*parcoords", opened.html)
