"""Scores over epochs: the learning curves, and how well the rungs foretold the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from samtune.analysis.audit import rank_correlation
from samtune.analysis.scores import value_at
from samtune.report.parts import Part, Plot, Section, Subject
from samtune.report.plots import (
    BLUE,
    GREEN,
    MOST_POINTS,
    ORANGE,
    STATE_COLOURS,
    at_most,
    broken,
    figure,
    label,
    vertical,
)
from samtune.study import Study, Trial
from samtune.words import describe

EPOCHS = 60  # of one curve; of a longer one every so many are drawn
FEWEST = 5  # trials that a rank correlation is made of


def learning_curves(subject: Subject) -> Section:
    """The metric of each trial epoch by epoch, with the rungs and the baseline."""
    study = subject.study
    title = "Learning curves"
    trials = [t for t in study.trials if t.epochs]
    if not trials:
        return Section("curves", title, ["No trial has finished an epoch yet."])
    longest = max(len(t.epochs) for t in trials)
    stride = -(-longest // EPOCHS)
    room = MOST_POINTS // min(EPOCHS, longest)
    leading = [t for t in (study.best, study.baseline) if t and t.epochs] + study.ranking
    shown, notes = at_most(trials, list({t.key: t for t in leading}.values())[: room // 2], room)
    if stride > 1:
        notes.append(f"Of each curve every {stride}th epoch is drawn, and the last.")
    traces = []
    special = {t.key for t in (study.best, study.baseline) if t}
    for state in dict.fromkeys(t.state for t in shown):
        of_state = [t for t in shown if t.state == state and t.key not in special]
        if of_state:
            style = {"color": STATE_COLOURS[state], "width": 1.5}
            traces.append(_curves(of_state, stride, state, style, opacity=0.7))
    if study.baseline and study.baseline.epochs:
        style = {"color": ORANGE, "width": 3, "dash": "dash"}
        traces.append(_curves([study.baseline], stride, "baseline, rho = 0", style))
    if study.best and not study.best.is_baseline:
        style = {"color": GREEN, "width": 3}
        traces.append(_curves([study.best], stride, f"best, {study.best.key}", style))
    rungs = _rungs(study)
    shows = f"{study.metric} after each epoch, a line for each trial, the best one thick."
    if study.baseline:
        shows += " The dashed orange line is the baseline without SAM."
    if rungs:
        at = ", ".join(map(str, rungs))
        shows += (
            f" Dotted vertical lines are the rungs, epoch {at}, where the scheduler "
            f"({study.config.study.scheduler.name}) compares trials and stops the weaker ones."
        )
    made = figure(
        traces,
        x="epoch",
        y=label(study.metric),
        height=460,
        shapes=[vertical(rung) for rung in rungs],
    )
    return Section("curves", title, [Plot(made, shows, notes)])


def rungs(subject: Subject) -> Section:
    """How well the scores at each epoch foretold those at the end."""
    study = subject.study
    title = "What early epochs tell of the end"
    judged = subject.answer.audit
    parts: list[Part] = [judged.sentence] if judged else []
    if judged and judged.rungs:
        told = [(r.epoch, r.correlation) for r in judged.rungs]
        who = f"{judged.trials} audited trials, which ran to their end whatever the scheduler said"
    else:
        epochs = study.config.trial.training.epochs
        sample = [
            t
            for t in study.trials
            if t.state == "finished" and not t.is_baseline and len(t.epochs) == epochs
        ]
        if len(sample) < FEWEST or epochs < 2:
            parts.append(
                f"{len(sample)} trial{'s' * (len(sample) != 1)} ran to the end, and {FEWEST} are "
                "needed to tell how well earlier epochs foretell it."
            )
            return Section("rungs", title, parts)
        told = _correlations(sample, epochs)
        who = f"the {len(sample)} trials that ran to their end"
        if any(t.state == "stopped" for t in study.trials):
            parts.append(
                "Only trials that the scheduler let run to their end are compared here, and it "
                "kept those that did well early. With `study.audit: 0.2`, a fifth of the trials "
                "would run to the end whatever it says, and be a fair sample."
            )
    known = [(epoch, r) for epoch, r in told if r is not None]
    shown = known[:: -(-len(known) // MOST_POINTS)] if known else []
    marked = set(_rungs(study))
    trace = {
        "type": "scatter",
        "x": [epoch for epoch, _ in shown],
        "y": [r for _, r in shown],
        "mode": "lines+markers",
        "line": {"color": BLUE},
        "marker": {
            "opacity": 1,
            "size": [12 if epoch in marked else 6 for epoch, _ in shown],
            "color": [ORANGE if epoch in marked else BLUE for epoch, _ in shown],
        },
        "hovertemplate": "epoch %{x}: %{y:.2f}<extra></extra>",
        "showlegend": False,
    }
    shows = (
        f"Spearman's rank correlation of the scores at an epoch with those at the end, over {who}: "
        "at 1 the order was final already, at 0 it said nothing."
    )
    if found := [f"{r:.2f} at epoch {epoch}" for epoch, r in known if epoch in marked]:
        shows += f" At the rungs (large, orange): {', '.join(found)}."
    low = 0 if all(r >= 0 for _, r in shown) else -1.05
    made = figure([trace], x="epoch", y={"title": "rank correlation", "range": [low, 1.05]})
    return Section("rungs", title, [*parts, Plot(made, shows)])


def _curves(
    trials: Sequence[Trial], stride: int, name: str, line: dict[str, object], opacity: float = 1.0
) -> dict[str, object]:
    lines = []
    for trial in trials:
        drawn = trial.epochs[::stride]
        if drawn[-1] is not trial.epochs[-1]:
            drawn = [*drawn, trial.epochs[-1]]
        xs, ys = [e.epoch for e in drawn], [e.metrics[trial.metric] for e in drawn]
        lines.append((xs, ys, label(f"{trial.key}: {describe(trial.values)}, {trial.state}")))
    single = all(len(t.epochs) == 1 for t in trials)
    return {
        "type": "scatter",
        **broken(lines),
        "mode": "markers" if single else "lines",
        "line": line,
        "marker": {"color": line["color"]},
        "opacity": opacity,
        "name": name,
        "hovertemplate": "%{text}<br>epoch %{x}: %{y:.4f}<extra></extra>",
    }


def _rungs(study: Study) -> list[int]:
    return study.config.study.scheduler.rung_epochs(study.config.trial.training.epochs)


def _correlations(sample: Sequence[Trial], epochs: int) -> list[tuple[int, float | None]]:
    scores = np.array([[value_at(t, e) for e in range(1, epochs + 1)] for t in sample])
    return [(e, rank_correlation(scores[:, e - 1], scores[:, -1])) for e in range(1, epochs)]
