"""One sentence on what SAM gains, which claims what the intervals hold and no more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from samtune.analysis.statistics import Difference

Claim = Literal["gain", "loss", "none", "unknown"]
CLAIMS: tuple[Claim, ...] = ("gain", "loss", "none", "unknown")  # in the order they are told


def claim_of(gain: Difference | None) -> Claim:
    """What the interval of a gain allows one to say: `none` where it holds 0."""
    if gain is None or gain.low is None or gain.high is None:
        return "unknown"
    return "gain" if gain.low > 0 else "loss" if gain.high < 0 else "none"


def sentence(
    gains: Mapping[str, Difference | None],
    *,
    rho: float,
    optimizer: str,
    metric: str,
    is_share: bool,
    images: int,
    pairs: int,
) -> str:
    """What SAM gains over the optimizer alone.

    Args:
        gains: by what is equal, as `equal epochs`; None where no pair of runs ended well.
        is_share: whether the metric is a share, told in points of 100; else in the metric itself.
        images: of the test split.
        pairs: how many were to be run.
    """
    base = "SGD" if optimizer == "sgd" else optimizer
    clauses: list[str] = []
    for claim in CLAIMS:
        signed = claim in ("none", "unknown")
        told = [
            (*_amount(gain, is_signed=signed, is_share=is_share), f"at {equal}")
            for equal, gain in gains.items()
            if claim_of(gain) == claim
        ]
        if told:
            unit = "points" if is_share else f"in {metric}"
            clauses.append(_clause(claim, told, unit, f"SAM with rho {rho:.3g}", base, clauses))
    text = f"{', but '.join(clauses)}, on {images} test images it never saw."
    ended = min(gain.pairs if gain else 0 for gain in gains.values())
    if ended < pairs:
        text += f" Only {ended} of {pairs} pairs of runs ended well."
    return text[0].upper() + text[1:]


def _clause(
    claim: Claim,
    told: list[tuple[str, str, str]],
    unit: str,
    subject: str,
    base: str,
    before: list[str],
) -> str:
    """What is claimed alike of one or two baselines.

    Args:
        told: of each its value, its width or what there is instead, and where.
    """
    (value, width, where), *others = told
    rest = "".join(f", {v}{w} {at}" for v, w, at in others)
    who = "it" if before else subject
    match claim:
        case "gain":
            return f"{who} gains {value} {unit}{width} over {base} {where}{rest}"
        case "loss":
            return f"{who} loses {value} {unit}{width} against {base} {where}{rest}"
        case "none":
            of = "" if before else f" of {subject} over {base}"
            return f"no gain{of} can be claimed: {value} {unit}{width} {where}{rest}"
    over = "" if before else f" over {base}"
    return f"whether {who} gains{over} cannot be told: {value} {unit}{width} {where}{rest}"


def _amount(gain: Difference | None, *, is_signed: bool, is_share: bool) -> tuple[str, str]:
    if gain is None:
        return "no", " of any pair"
    scale, digits = (100, 1) if is_share else (1, 4)
    value = scale * gain.mean
    shown = f"{value:+.{digits}f}" if is_signed else f"{abs(value):.{digits}f}"
    if gain.half_width is None:
        return shown, f" ({gain.note})"
    return shown, f" +- {scale * gain.half_width:.{digits}f}"
