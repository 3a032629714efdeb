"""Several studies side by side: which came further, by how much, at which rho."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from samtune.analysis import answer
from samtune.errors import SamtuneError
from samtune.report.page import write_page
from samtune.report.parts import Plot, Section, Subject, Table
from samtune.report.plots import COLOURS, MOST_POINTS, figure, label, log_axis
from samtune.report.rho import band_traces
from samtune.study import Study, Trial
from samtune.words import describe, metric

MOST_STUDIES = len(COLOURS)
HEADINGS = (
    "state",
    "trials",
    "metric",
    "best trial",
    "its score",
    "its rho",
    "baseline's score",
    "difference",
    "recommended rho",
    "as good as",
    "p, if rho had no effect",
)


def write_comparison(studies: Sequence[Study], path: Path | None = None) -> Path:
    """Writes a page that compares studies of the same metric, and returns where.

    Args:
        path: the file; None is `compared-with-B.html` in the first study's folder.

    Raises:
        SamtuneError: they do not compare, or are too many to be told apart.
    """
    first, *others = studies
    if len(studies) > MOST_STUDIES:
        raise SamtuneError(
            f"{len(studies)} studies are too many for one plot: at most {MOST_STUDIES}"
        )
    for other in others:
        if (other.metric, other.config.mode) != (first.metric, first.config.mode):
            raise SamtuneError(
                f"{first.name} and {other.name} do not compare: one is judged by {first.metric}, "
                f"the other by {other.metric}"
            )
    subjects = [Subject(study, answer(study)) for study in studies]
    names = " and ".join(study.name for study in studies)
    path = path or first.folder.root / f"compared-with-{'-'.join(s.name for s in others)}.html"
    sections = [_table(subjects), _curves(subjects), _rho(subjects)]
    state = ", ".join(dict.fromkeys(study.state for study in studies))
    return write_page(path, f"Studies {names}", state, sections)


def _table(subjects: Sequence[Subject]) -> Section:
    notes = [
        "Scores are of one seed each, and the best were chosen by them; the difference is that of "
        "the best trial and its study's own baseline."
    ]
    datasets = {s.study.name: _dataset(s.study) for s in subjects}
    if len(set(datasets.values())) > 1:
        told = "; ".join(f"{name} on {data}" for name, data in datasets.items())
        notes.append(f"The studies differ in their data, so their scores do not compare: {told}.")
    if len({s.study.config.study.select for s in subjects}) > 1:
        told = ", ".join(f"{s.study.name} by the {s.study.config.study.select}" for s in subjects)
        notes.append(f"Trials count by different epochs: {told}.")
    rows = [list(row) for row in zip(HEADINGS, *map(_column, subjects), strict=True)]
    settings = [
        f"{s.study.name}: {s.study.best.key} with {describe(s.study.best.values)}."
        for s in subjects
        if s.study.best
    ]
    columns = ["", *(f">{s.study.name}" for s in subjects)]
    table = Table("Best, difference to the baseline, and the rho to take.", columns, rows)
    return Section("answer", "Side by side", [table, *notes, *settings])


def _column(subject: Subject) -> list[str]:
    study, found = subject.study, subject.response
    best, baseline = study.best, study.baseline
    both = best and baseline and best.value is not None and baseline.value is not None
    band = found.band if found and found.rho is not None else None
    return [
        study.state,
        str(len(study.trials)),
        study.metric,
        best.key if best else "-",
        metric(best.value if best else None),
        f"{best.config.sam.rho:.3g}" if best else "-",
        metric(baseline.value if baseline else None),
        f"{(best.value or 0) - (baseline.value or 0):+.4f}" if both and best and baseline else "-",
        f"{band.recommended:.2g}" if band else "-",
        f"{band.plateau[0]:.2g} to {band.plateau[1]:.2g}" if band else "-",
        f"{found.p_value:.2g}" if found and found.p_value is not None else "-",
    ]


def _curves(subjects: Sequence[Subject]) -> Section:
    title = "Learning curves of the best and of the baselines"
    traces = []
    for subject, colour in zip(subjects, COLOURS, strict=False):
        study = subject.study
        lines = [(study.best, "solid", "best"), (study.baseline, "dash", "baseline")]
        for trial, dash, which in lines:
            if trial and trial.epochs:
                traces.append(
                    {
                        "type": "scatter",
                        "mode": "lines",
                        "name": f"{label(study.name)}, {which}",
                        **_thinned_curve(trial, 2 * len(subjects)),
                        "line": {"color": colour, "dash": dash, "width": 2},
                    }
                )
    if not traces:
        return Section("curves", title, ["No trial has finished an epoch yet."])
    metric_ = subjects[0].study.metric
    shows = (
        f"{metric_} after each epoch: solid the best trial of each study, dashed its baseline "
        "without SAM."
    )
    return Section("curves", title, [Plot(figure(traces, x="epoch", y=label(metric_)), shows)])


def _rho(subjects: Sequence[Subject]) -> Section:
    title = "Score against rho"
    traces, told = [], []
    for subject, colour in zip(subjects, COLOURS, strict=False):
        study, found = subject.study, subject.response
        if found is None:
            told.append(f"{study.name} has not searched sam.rho.")
            continue
        told.append(f"{study.name}: {found.sentence}")
        if found.band:
            traces += band_traces(found.band, colour, label(study.name))
    if not traces:
        return Section("rho", title, told)
    shows = (
        "The fit of each study at its best trial's other settings, with a band of one standard "
        "error around it."
    )
    rhos = [rho for s in subjects if s.response and s.response.band for rho in s.response.band.rho]
    made = figure(traces, x=log_axis("rho", rhos), y=label(subjects[0].study.metric))
    return Section("rho", title, [*told, Plot(made, shows)])


def _thinned_curve(trial: Trial, curves: int) -> dict[str, list[float]]:
    stride = -(-len(trial.epochs) * curves // MOST_POINTS)
    drawn = trial.epochs[::stride]
    return {"x": [e.epoch for e in drawn], "y": [e.metrics[trial.metric] for e in drawn]}


def _dataset(study: Study) -> str:
    dataset = study.config.trial.dataset
    return f"{dataset.name} ({describe(dataset.params)})" if dataset.params else dataset.name
