"""Whether the trial scheduler stopped the right trials: what `study.audit` is for.

A share of the trials, chosen by their numbers alone, runs to its end whatever the scheduler says.
Those are a fair sample of all trials, as the ones that it lets finish are not: among them alone
every rung looks good.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np

from samtune.analysis.axes import Matrix
from samtune.analysis.results import Audit, RungAudit
from samtune.analysis.scores import value_at
from samtune.study import Study, Trial
from samtune.study.trial_folder import trial_number

FEWEST = 5


def is_audited(number: int, share: float) -> bool:
    """Whether the trial of this number is one of the share; they are spread evenly."""
    # In whole millionths, since 10 * 0.1 may be a little less than 1.
    millionths = round(share * 1_000_000)
    return number * millionths // 1_000_000 > (number - 1) * millionths // 1_000_000


def audit(study: Study) -> Audit | None:
    """How well the rungs chose; None where nothing was audited, or no rung is there."""
    share, epochs = study.config.study.audit, study.config.trial.training.epochs
    scheduler = study.config.study.scheduler
    rungs = scheduler.rung_epochs(epochs)
    if not share or not rungs:
        return None
    sample = [
        t
        for t in study.trials
        if t.state == "finished" and not t.is_baseline and is_audited(trial_number(t.key), share)
    ]
    if len(sample) < FEWEST:
        return Audit(
            len(sample),
            [],
            None,
            None,
            f"Audit: {len(sample)} trials ran to their end whatever the scheduler said, and "
            f"{FEWEST} are needed to judge it.",
        )
    sign = 1 if study.config.mode == "max" else -1
    scores = np.array([[sign * value_at(t, e) for e in range(1, epochs + 1)] for t in sample])
    factor = scheduler.reduction_factor
    told = [
        RungAudit(
            epoch,
            rank_correlation(scores[:, epoch - 1], scores[:, -1]),
            _regret(scores, [epoch], factor),
            epoch in rungs,
        )
        for epoch in range(1, epochs)
    ]
    regret = _regret(scores, rungs, factor)
    graces = (scheduler.model_copy(update={"grace_epochs": e}) for e in range(1, epochs + 1))
    right = next(
        g.grace(epochs) for g in graces if not _regret(scores, g.rung_epochs(epochs), factor)
    )
    sentence = _in_words(study, sample, told, regret, right)
    return Audit(len(sample), told, regret, right, sentence)


def rank_correlation(there: Matrix, end: Matrix) -> float | None:
    """Spearman's, of the scores at an epoch with those at the end; None if all are equal."""
    from scipy.stats import ConstantInputWarning, spearmanr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        found = float(spearmanr(there, end).statistic)
    return None if math.isnan(found) else found


def _regret(scores: Matrix, rungs: Sequence[int], factor: int) -> float:
    """What successive halving of these trials would have lost at the end.

    Args:
        scores: shape (trials, epochs), larger is better.
    """
    kept = np.arange(len(scores))
    for epoch in rungs:
        order = np.argsort(-scores[kept, epoch - 1], kind="stable")
        kept = kept[order[: math.ceil(len(kept) / factor)]]
    return float(scores[:, -1].max() - scores[kept, -1].max())


def _in_words(
    study: Study, sample: Sequence[Trial], told: Sequence[RungAudit], regret: float, right: int
) -> str:
    shown = ", ".join(
        f"epoch {rung.epoch} {'-' if rung.correlation is None else f'{rung.correlation:.2f}'}"
        for rung in told
        if rung.is_rung
    )
    grace = study.config.study.scheduler.grace(study.config.trial.training.epochs)
    text = (
        f"Audit of {len(sample)} trials: rank correlation with the end at {shown}; the rungs would "
        f"have lost {regret:.4f} of {study.metric}. "
    )
    if right == grace:
        return text + f"grace_epochs {grace} is right."
    if right > grace:
        return text + f"grace_epochs {right} would have lost nothing, and {grace} was too early."
    return text + f"grace_epochs {right} would have lost nothing either, and cost less."
