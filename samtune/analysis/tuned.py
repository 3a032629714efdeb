"""What tuning the optimizer alone came to, beside the search with SAM."""

from __future__ import annotations

from samtune.config.trial import BEST
from samtune.study import Study
from samtune.words import count, describe, metric


def tuned_in_words(study: Study) -> str:
    """The best of the tuned baseline, or how far it is; empty where none is asked for."""
    if study.config.study.baseline != "tuned":
        return ""
    alone = f"{study.config.trial.optimizer.name} alone"
    tuned = study.tuned_baseline
    if tuned is None or tuned.left:
        so_far = f", {tuned.tally} so far" if tuned else ""
        resume = study.folder.command("resume")
        return f"The baseline is not tuned yet{so_far}: `{resume}` goes on with that."
    best = tuned.best
    if best is None or best.value is None:
        return f"No trial of {tuned.name} can be used ({tuned.tally}): the baseline is not tuned."
    text = (
        f"Tuned by {count(len(tuned.trials), 'trial')} of its own, {alone} has "
        f"{study.config.study.select} {study.metric} {metric(best.value)} with "
        f"{describe(best.values)} ({best.key} of {tuned.name})"
    )
    return f"{text}, above every trial with SAM." if tuned_is_best(study) else f"{text}."


def score_alone(study: Study) -> float | None:
    """The best score of the optimizer alone: the baseline's, or the tuned one's."""
    tuned = study.tuned_baseline
    found = [trial for trial in (study.baseline, tuned and tuned.best) if trial]
    values = [trial.value for trial in found if trial.value is not None]
    best: float | None = BEST[study.config.mode](values, default=None)
    return best


def tuned_is_best(study: Study) -> bool:
    """Whether the tuned baseline is above every trial of the search."""
    tuned = study.tuned_baseline and study.tuned_baseline.best
    if not tuned or tuned.value is None or not study.best or study.best.value is None:
        return False
    ours = study.best.value
    return bool(BEST[study.config.mode](ours, tuned.value) != ours)
