"""The page says what the analysis says, holds everything it needs, and escapes what it is told."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from samtune import register_model
from samtune.analysis import Answer
from samtune.analysis.confirmed import Baseline, Confirmed, Row
from samtune.analysis.response import response
from samtune.analysis.statistics import Difference, Mean
from samtune.analysis.warnings import warnings_of
from samtune.config.trial import Named
from samtune.files import write_json
from samtune.report import curves
from samtune.report.methods import paragraph
from samtune.report.page import write_report
from samtune.report.parts import Plot, Subject
from samtune.report.plots import MOST_POINTS, at_most
from samtune.report.spent import pareto
from samtune.study import Study, StudyFolder, open_study
from samtune.study.manifest import Reading
from tests.report.conftest import BASELINE, Page, config_of, read_page, risen_and_fallen
from tests.synthetic import Run, write_study

Paged = Callable[..., Page]
NOTHING = Answer(None, None, [])
SCRIPT = "<script>alert(1)</script>"


@register_model("labelled")
class Labelled(nn.Sequential):
    """Has a parameter that may be any text."""

    def __init__(self, *, num_classes: int, label: str = "a") -> None:
        super().__init__(nn.Flatten(), nn.LazyLinear(num_classes))


def _figure(page: Page, section: str) -> dict[str, Any]:
    """The first plot of a section."""
    body = page.html.split(f'<section id="{section}"')[1].split("</section>")[0]
    (raw, *_) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', body, re.S)
    found: dict[str, Any] = json.loads(raw)
    return found


def _trace(figure: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (t for t in figure["data"] if t.get("name") == name and t.get("showlegend", True))
    assert isinstance(found, dict)
    return found


def _section(page: Page, title: str, end: str) -> str:
    return page.text.rpartition(title)[2].partition(end)[0]


def test_the_answer_is_the_one_of_the_analysis(page: Page, study: Study) -> None:
    found = response(study)
    assert found is not None
    assert found.rho == pytest.approx(0.1, rel=0.3)
    assert found.sentence.replace("+-", "±") in page.text
    best = study.best
    assert best is not None
    assert f"The best trial, {best.key}, has {best.value:.4f}" in page.text
    assert f"a difference of {(best.value or 0) - BASELINE[-1]:+.4f}" in page.text
    for warning in warnings_of(study):
        assert warning.sentence in page.text


def test_the_plot_over_rho_has_the_scores_the_fit_and_the_plateau(page: Page, study: Study) -> None:
    figure = _figure(page, "rho")
    found = response(study)
    assert found is not None
    assert found.band is not None
    fit = _trace(figure, "fit")
    assert fit["y"] == pytest.approx(found.band.mean)
    points = {
        x: y
        for trace in figure["data"]
        if trace.get("mode") == "markers" and trace["name"] != "diverged"
        for x, y in zip(trace["x"], trace["y"], strict=True)
    }
    # Finished trials gain 0.2 from epoch 1 to their end, so a stopped one is placed 0.2 higher.
    truth = {r.values["sam.rho"]: r.curve[0] + 0.2 for r in risen_and_fallen()[:-1]}
    assert points == pytest.approx(truth)
    assert _trace(figure, "diverged")["x"] == [0.9]
    rectangle, recommended, baseline = figure["layout"]["shapes"]
    assert (rectangle["x0"], rectangle["x1"]) == pytest.approx(found.band.plateau)
    assert recommended["x0"] == found.rho
    assert baseline["y0"] == BASELINE[-1]


def test_learning_curves_hold_every_epoch_the_rungs_and_the_baseline(page: Page) -> None:
    figure = _figure(page, "curves")
    drawn = [y for trace in figure["data"] for y in trace["y"] if y is not None]
    epochs = [value for run in risen_and_fallen() for value in run.curve] + BASELINE
    assert sorted(drawn) == pytest.approx(sorted(epochs))
    assert _trace(figure, "baseline, rho = 0")["y"] == [*BASELINE, None]
    assert [shape["x0"] for shape in figure["layout"]["shapes"]] == [1, 2]


def test_each_width_has_its_own_points_and_line(page: Page) -> None:
    figure = _figure(page, "settings")
    for width in (1, 2):
        traces = [t for t in figure["data"] if t.get("legendgroup") == f"width_factor {width}"]
        assert any(t["mode"] == "lines" and len(t["x"]) == 61 for t in traces)
        rhos = [x for t in traces if t["mode"] == "markers" for x in t["x"]]
        runs = [r for r in risen_and_fallen()[:-1] if r.values["model.width_factor"] == width]
        assert sorted(rhos) == pytest.approx([r.values["sam.rho"] for r in runs])


def test_importance_is_over_all_trials_that_reached_the_rung(page: Page) -> None:
    told = _section(page, "Which settings matter", "All settings side by side")
    # Twelve trials and the one that diverged after epoch 1, which is the first rung.
    assert "at epoch 1, the first rung differs" in told
    assert "over all 13 trials that reached it" in told
    (bars,) = _figure(page, "importance")["data"]
    assert sum(bars["x"]) == pytest.approx(1)
    assert bars["y"][-1] == "rho"  # the diverged one aside, width changes nothing


def test_stopped_trials_have_their_line_through_the_settings(page: Page) -> None:
    figure = _figure(page, "parallel")
    lines = [text for trace in figure["data"] for text in set(trace["text"]) if text]
    assert len(lines) == 13
    assert sum(", stopped, val_accuracy" in line for line in lines) == 4
    assert sum("diverged" in line for line in lines) == 1


def test_equal_gains_make_a_rank_correlation_of_one(page: Page) -> None:
    assert "At the rungs (large, orange): 1.00 at epoch 1, 1.00 at epoch 2." in page.text
    assert "over the 8 trials that ran to their end" in page.text


def test_trials_that_overlap_lie_in_different_slots(page: Page) -> None:
    figure = _figure(page, "timeline")
    bars = {
        text.partition(":")[0]: (lane, base)
        for trace in figure["data"]
        for text, lane, base in zip(trace["text"], trace["y"], trace["base"], strict=True)
    }
    assert len(bars) == 14
    # t0001 and t0002 begin with the baseline, at 0; t0003 and t0004 a second later.
    assert {bars[key] for key in ("t0000", "t0001", "t0002")} == {
        (f"slot {lane}", 0.0) for lane in (1, 2, 3)
    }
    assert {bars["t0003"], bars["t0004"]} == {("slot 1", 1.0), ("slot 2", 1.0)}


def test_the_pareto_front_is_what_none_beats_for_less(study: Study) -> None:
    # Each epoch costs 0.1 s: the best of the stopped trials for one epoch, then the best of all.
    stopped = max((t for t in study.trials if t.state == "stopped"), key=lambda t: t.value or 0)
    assert [t.key for t in pareto(study)] == [stopped.key, study.best and study.best.key]


def test_a_study_that_is_not_confirmed_says_how_to(page: Page) -> None:
    assert "Not confirmed yet" in page.text
    assert "samtune confirm tiny" in page.text


def test_the_baseline_stands_in_the_table_with_the_settings_it_was_trained_with(page: Page) -> None:
    # model.width_factor is 1 under `trial:`, and no part of what makes a trial the baseline
    assert f"t0000 baseline {BASELINE[-1]:.4f} {max(BASELINE):.4f} 0 1 3 finished" in page.text


def test_a_confirmation_is_shown_with_its_table_and_verdict(paged: Paged) -> None:
    page = paged(risen_and_fallen(), baseline=BASELINE)
    folder = page.path.parent
    StudyFolder(folder).note_test_reading(Reading("me", "now", "tiny-confirm", "0", True))
    gain = Difference(5, 0.197, 0.007, 0.0001, 0.0625, 0.5)
    beside = Baseline("equal epochs", 3, [], Mean(5, 0.75, 0.01), gain, 0.0002)
    row = Row("t0005", {"sam.rho": 0.1}, 0.1, 3, [], Mean(5, 0.947, 0.008), 0.95, 0.025, [beside])
    verdict = "SAM with rho 0.1 gains 19.7 points +- 0.7 over SGD."
    seeds = [1, 2, 3, 4, 5]
    found = Confirmed(
        "tiny", "test_accuracy", "max", 300, seeds, False, [row], "t0005", ["t0005"], True, verdict
    )
    (folder.parent / "tiny-confirm").mkdir()
    write_json(folder.parent / "tiny-confirm" / "confirm.json", found.as_json())
    shown = read_page(write_report(open_study("tiny", folder.parent)))
    assert "SAM with rho 0.1 gains 19.7 points ± 0.7 over SGD." in shown.text
    cells = "t0005 94.7 ± 0.8 equal epochs (3) 75.0 ± 1.0 +19.7 ± 0.7 0.0001 0.0002 0.062 0.50"
    assert cells in shown.text
    assert "Means and paired differences of 5 seeds" in shown.text
    assert "300 images leave ± 2.5 points" in shown.text


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        ("asha", " Asynchronous successive halving (Li et al. 2020) with a grace of 1 epochs"),
        ("hyperband", " Hyperband (Li et al. 2018) with a grace of 1 epochs"),
        ("median", " The median stopping rule (Golovin et al. 2017) with a grace of 1 epochs"),
    ],
)
def test_the_methods_name_the_scheduler_in_a_sentence(
    tmp_path: Path, scheduler: str, said: str
) -> None:
    study = write_study(tmp_path, config_of(("name: asha", f"name: {scheduler}")), [])
    assert said in paragraph(Subject(study, NOTHING))


def test_the_methods_name_seeds_versions_and_the_space(page: Page, study: Study) -> None:
    told = _section(page, "Methods, to paste into a paper", "What the study was begun with.")
    assert "13 trials searched sam.rho (0.01 to 1, log scale); model.width_factor (1, 2)" in told
    assert "We trained wide_resnet (depth 10, dropout 0) on digits (label noise 0.4, " in told
    assert "with seed 0; trials were trained with seed 0." in told
    assert "stopped 4 of them early" in told
    for name, version in study.folder.manifest.versions.items():
        assert f"{name} {version}" in told


def test_nothing_is_fetched_and_plotly_is_in_it_once(page: Page) -> None:
    assert page.html.count("* plotly.js v") == 1
    for tag, attributes in page.tags:
        assert "src" not in attributes, tag
        assert (attributes.get("href") or "#").startswith("#"), tag
    assert "default-src 'none'" in page.html
    assert "showSendToCloud: false" in page.html
    assert page.path.stat().st_size < 8e6


def test_it_can_be_read_without_eyes_and_without_a_mouse(page: Page) -> None:
    ids = {attributes.get("id") for _, attributes in page.tags}
    plots = [a for tag, a in page.tags if tag == "div" and a.get("class") == "plot"]
    assert len(plots) == len(page.figures) == 9
    for plot in plots:
        assert plot["role"] == "img"
        assert plot["aria-describedby"] in ids
    skip = next(a for tag, a in page.tags if tag == "a")
    assert (skip["class"], skip["href"]) == ("skip", "#main")
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert all(link and link[1:] in ids for link in links)
    assert [tag for tag, _ in page.tags if re.fullmatch(r"h\d", tag)][:2] == ["h1", "h2"]
    for _, attributes in page.tags:
        if attributes.get("class") == "table":
            assert attributes["tabindex"] == "0"


def test_what_a_study_says_is_text_and_never_markup(paged: Paged) -> None:
    model = ("name: wide_resnet, depth: 10, width_factor: 1", "name: labelled")
    searched = ("model.width_factor: {choice: [1, 2]}", f"model.label: {{choice: ['{SCRIPT}', b]}}")
    runs = [
        Run({"sam.rho": 0.1 + i / 100, "model.label": label}, [0.5, 0.6, 0.7 + i / 100])
        for i, label in enumerate([SCRIPT, "b"] * 6)
    ]
    values = {"sam.rho": 0.2, "model.label": SCRIPT}
    page = paged([*runs, Run(values, [], "failed", reason=f"Oops {SCRIPT}")], model, searched)
    assert f"Oops {SCRIPT}" in page.text  # as a reader sees it
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert len(scripts) == len(page.figures) + 2  # each plot's data, plotly, and how to draw
    drawn = json.dumps(page.figures)
    assert "&lt;script&gt;" in drawn
    assert SCRIPT not in drawn  # plotly reads markup, too


def test_a_page_that_is_passed_on_holds_no_secret(paged: Paged) -> None:
    runs = [
        Run({"sam.rho": 0.1}, [0.5, 0.6, 0.7]),
        Run({"sam.rho": 0.2}, [], "failed", reason="https://me:pw123@host/x is gone"),
    ]
    written = paged(runs).path.parent
    folder = StudyFolder(written)
    config = folder.config()
    secret = Named(name="digits", token="hf_abc", mirror="https://me:pw123@host/x")
    trial = config.trial.model_copy(update={"dataset": secret})
    page = read_page(write_report(Study(folder, config.model_copy(update={"trial": trial}))))
    assert "digits (token ***, mirror https://me:***@host/x)" in page.text
    assert "failed: https://me:***@host/x is gone" in page.text
    assert "hf_abc" not in page.html
    assert "pw123" not in page.html


def test_a_running_study_says_what_is_still_to_come(paged: Paged) -> None:
    page = paged(risen_and_fallen()[:2], ("trials: 4", "trials: 5"))
    assert "The study is not done, 4 trials to go: what follows is so far." in page.text
    assert "Too few trials to recommend a rho: 2 with a score" in page.text
    assert "Not confirmed yet" in page.text
    folder = StudyFolder(page.path.parent)
    with folder.session():
        running = read_page(write_report(open_study("tiny", folder.root.parent)))
    assert "The study is still running, 4 trials to go" in running.text


def test_each_section_of_an_empty_study_says_why_it_is_empty(paged: Paged) -> None:
    page = paged([])
    assert page.figures == []
    assert "plotly" not in page.html
    for sentence in (
        "No trial has come to a score yet, so there is nothing to say of SAM.",
        "No trial has finished an epoch yet.",
        "0 trials reached epoch 1, the first rung, and it takes 10 to tell.",
        "Fewer than two trials have a score yet.",
        "No trial diverged.",
    ):
        assert sentence in page.text


def test_without_a_search_for_rho_its_sections_say_so(paged: Paged) -> None:
    page = paged(
        [Run({"model.width_factor": 1 + i % 2}, [0.5, 0.6 + i / 100, 0.7]) for i in range(3)],
        ("  sam.rho: {float: [0.01, 1.0], log: true}\n", ""),
    )
    assert page.text.count("sam.rho was not searched in this study") == 2


def test_a_plot_of_many_trials_keeps_the_best_and_says_what_it_leaves_out() -> None:
    trials = list(range(5000))
    shown, notes = at_most(trials, trials[-2:], MOST_POINTS)
    assert len(shown) == MOST_POINTS
    assert shown == sorted(shown)
    assert {4998, 4999} <= set(shown)
    assert max(b - a for a, b in itertools.pairwise(shown)) <= 3
    note = "Drawn are 2,000 of 5,000 trials: the best, and an even share of the others."
    assert notes == [note]


def test_learning_curves_are_thinned_to_the_points_a_plot_may_have(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "MOST_POINTS", 20)
    section = curves.learning_curves(Subject(study, NOTHING))
    (plot,) = section.parts
    assert isinstance(plot, Plot)
    traces = json.loads(plot.figure)["data"]
    assert sum(y is not None for trace in traces for y in trace["y"]) <= 20
    assert {"baseline, rho = 0", f"best, {study.best and study.best.key}"} <= {
        trace["name"] for trace in traces
    }
    assert plot.notes == ["Drawn are 6 of 14 trials: the best, and an even share of the others."]
