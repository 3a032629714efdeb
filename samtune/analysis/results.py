"""What is said of a study: plain data, which is read without what computes it.

`response`, `audit` and `warnings` compute it with numpy and scipy, whose import alone takes longer
than to print what they found before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from samtune.words import describe, metric

Kind = Literal["edge", "few_trials", "no_effect", "equal_trials", "small_split", "baseline"]


@dataclass(frozen=True)
class Band:
    """The score along rho, with the other settings held.

    Attributes:
        settings: the others, by path.
        rho: the grid, even on the log scale, from the smallest to the largest rho tried.
        mean, standard_error: of the score at each rho.
        plateau: the ends of the stretch within one standard error of the best.
        recommended: the plateau's middle on the log scale.
        value, error: the mean and its standard error there.
    """

    settings: dict[str, Any]
    rho: list[float]
    mean: list[float]
    standard_error: list[float]
    plateau: tuple[float, float]
    recommended: float
    value: float
    error: float


@dataclass(frozen=True)
class Response:
    """What a study says of rho.

    Attributes:
        trials: how many it is made of; `stopped` of them were stopped before their end.
        diverged: how many trials with SAM diverged; they have no score.
        rho: the recommended one; None where none can be recommended.
        p_value: how probable such a dependence on rho is where there is none; None if not known.
        band: at the best trial's other settings; None where there are too few trials.
        slices: the same at every combination of choices tried, such as width and depth.
        varied: the paths of those choices.
        sentence: all that in words.
    """

    metric: str
    trials: int
    stopped: int
    diverged: int
    rho: float | None
    p_value: float | None
    band: Band | None
    sentence: str
    slices: list[Band] = field(default_factory=list)
    varied: list[str] = field(default_factory=list)


def slice_columns(found: Response) -> list[str]:
    """The headings of `slice_rows`; a number's column starts with `>`."""
    return ["at", ">rho", ">as good as", f">{found.metric}", ">+-"]


def slice_rows(found: Response) -> list[list[str]]:
    """The rho to take at each combination of the other choices."""
    return [
        [
            describe({path: band.settings[path] for path in found.varied}),
            f"{band.recommended:.2g}",
            f"{band.plateau[0]:.2g} to {band.plateau[1]:.2g}",
            metric(band.value),
            metric(band.error),
        ]
        for band in found.slices
    ]


@dataclass(frozen=True)
class RungAudit:
    """What an epoch told of the end, over the audited trials.

    Attributes:
        correlation: Spearman's, of the scores there with those at the end; None if all are equal.
        regret: by how much the best of those that a rung there keeps ends below the best of all.
        is_rung: whether the study compared trials there.
    """

    epoch: int
    correlation: float | None
    regret: float
    is_rung: bool


@dataclass(frozen=True)
class Audit:
    """How well the rungs chose.

    Attributes:
        trials: audited ones that finished.
        rungs: every epoch before the last.
        regret: of all the study's rungs together.
        grace_epochs: the least grace whose rungs would have kept the best of these trials.
        sentence: all that in words.
    """

    trials: int
    rungs: list[RungAudit]
    regret: float | None
    grace_epochs: int | None
    sentence: str


@dataclass(frozen=True)
class StudyWarning:
    """One thing that speaks against a study's answer."""

    kind: Kind
    sentence: str


@dataclass(frozen=True)
class Answer:
    """What is said of a study.

    Attributes:
        response: which rho to take; None where rho was not searched.
        audit: whether the right trials were stopped; None where nothing tells.
        warnings: what speaks against the answer.
    """

    response: Response | None
    audit: Audit | None
    warnings: list[StudyWarning]
