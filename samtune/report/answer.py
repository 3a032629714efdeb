"""What the study says in short: the best trial, what to take, what a confirmation found."""

from __future__ import annotations

from collections.abc import Iterator

from samtune.analysis.confirmations import confirmations
from samtune.analysis.results import slice_columns, slice_rows
from samtune.analysis.tuned import tuned_in_words
from samtune.report import confirmed as shown
from samtune.report.parts import Part, Section, Subject, Table
from samtune.study import Study, Trial
from samtune.words import describe, duration, metric, number

TOP = 5
MOST_ROWS = 200


def answer(subject: Subject) -> Section:
    """The best trials beside the baseline, and which rho to take."""
    study, found = subject.study, subject.response
    parts: list[Part] = [_state(study)]
    if study.best is None:
        parts.append("No trial has come to a score yet, so there is nothing to say of SAM.")
        return Section("answer", "What it found", parts)
    if found is not None:
        parts.append(found.sentence)
    parts += _gain(study)
    if tuned := tuned_in_words(study):
        parts.append(tuned)
    top = study.ranking[:TOP]
    if study.baseline and study.baseline.epochs and study.baseline not in top:
        top = [*top, study.baseline]
    parts.append(_trials(study, top, f"The best trials and the baseline, by {counted_by(study)}."))
    if found is not None and found.rho is not None and found.slices:
        parts.append(
            Table(
                f"The rho to take at other settings, with the {study.metric} expected there.",
                slice_columns(found),
                slice_rows(found),
            )
        )
    return Section("answer", "What it found", parts)


def confirmation(subject: Subject) -> Section:
    """Every confirmation that has read the test split for this study."""
    parts: list[Part] = []
    for name, found in confirmations(subject.study).items():
        parts.append(found.verdict)
        finalists = "; ".join(f"{trial} is {words}" for trial, words in shown.settings(found))
        caption = f"{name}: {found.images} test images. {finalists}."
        parts.append(Table(caption, shown.columns(found), shown.rows(found)))
        parts.append(" ".join(shown.notes(found)))
    if not parts:
        parts.append(
            "Not confirmed yet: the scores on this page are of one seed and of the validation "
            "images that chose the best. What SAM gains on test images, with intervals, is what "
            f"`samtune confirm {subject.study.name}` finds out."
        )
    return Section("confirmation", "Confirmed on test images", parts)


def all_trials(subject: Subject) -> Section:
    """Every trial as a table, best first."""
    study = subject.study
    if not study.trials:
        return Section("trials", "All trials", ["No trial has begun yet."])
    ranked = study.ranking
    keys = {t.key for t in ranked}
    in_order = [*ranked, *(t for t in study.trials if t.key not in keys)]
    caption = f"Trials by {counted_by(study)}, best first; then those that do not compare."
    if len(in_order) > MOST_ROWS:
        caption += f" The first {MOST_ROWS} of {len(in_order):,}."
    return Section("trials", "All trials", [_trials(study, in_order[:MOST_ROWS], caption)])


def counted_by(study: Study) -> str:
    """`val_accuracy of the last epoch`."""
    return f"{study.metric} of the {study.config.study.select} epoch"


def _state(study: Study) -> str:
    trained = sum(t.trained_s for t in study.trials)
    text = f"{study.tally[0].upper()}{study.tally[1:]}; {duration(trained)} of training in all."
    if study.state == "finished":
        return text
    how = "still running" if study.state == "running" else "not done"
    left = f"{study.left} trial{'s' * (study.left != 1)}"
    return f"The study is {how}, {left} to go: what follows is so far. {text}"


def _gain(study: Study) -> Iterator[Part]:
    best, baseline = study.best, study.baseline
    if study.config.baseline_of and best is not None:
        yield (
            f"Trials of {study.config.trial.optimizer.name} alone, to stand beside those with SAM "
            f"of {study.config.belongs_to}: the best has {metric(best.value)} with "
            f"{describe(best.values)}."
        )
        return
    if best is None or baseline is None or best.value is None or baseline.value is None:
        yield "There is no baseline (rho = 0) with a score, so what SAM gains cannot be told."
        return
    alone = f"{study.config.trial.optimizer.name} alone (rho = 0)"
    if best.is_baseline:
        yield f"No trial with SAM came above {alone}, which has {metric(baseline.value)}."
        return
    yield (
        f"The best trial, {best.key}, has {metric(best.value)} with {describe(best.values)}; "
        f"{alone} has {metric(baseline.value)} at the settings of the study file: a difference of "
        f"{best.value - baseline.value:+.4f}. Both are of one seed, and the best was chosen by "
        "this number."
    )


def _trials(study: Study, trials: list[Trial], caption: str) -> Table:
    paths = dict.fromkeys([*study.config.search_space, *(p for t in trials for p in t.values)])
    headings = [f">{path.partition('.')[2] or path}" for path in paths]
    scores = [f">last {study.metric}", f">best {study.metric}"]
    rows = [
        [
            f"{t.key} baseline" if t.is_baseline else t.key,
            metric(t.last_epoch.metrics[t.metric] if t.last_epoch else None),
            metric(t.best_epoch.metrics[t.metric] if t.best_epoch else None),
            *(_value(t, path) for path in paths),
            str(len(t.epochs)),
            t.state,
        ]
        for t in trials
    ]
    marked = next((i for i, t in enumerate(trials) if t is study.best), None)
    return Table(caption, ["trial", *scores, *headings, ">epochs", "state"], rows, marked)


def _value(trial: Trial, path: str) -> str:
    if path in trial.values:
        return number(trial.values[path])
    own = trial.config.value_of(path) if trial.is_baseline else None
    return "-" if own is None else number(own)
