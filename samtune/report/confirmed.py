"""What a confirmation found, as cells and notes: the terminal and the page show the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from samtune.words import describe

if TYPE_CHECKING:
    from samtune.analysis.confirmed import Baseline, Confirmed, Row
    from samtune.analysis.statistics import Difference, Mean


def columns(found: Confirmed) -> list[str]:
    """The headings; a number's column starts with `>`."""
    return [
        "trial",
        f">{found.metric}",
        "against",
        ">alone",
        ">gain",
        ">p",
        ">Holm",
        ">flips",
        ">r",
    ]


def rows(found: Confirmed) -> list[list[str]]:
    """One row for each finalist and baseline; the finalist is named in its first."""
    points = found.mode == "max"
    return [
        [*([row.trial, _mean(row.mean, points)] if not i else ["", ""]), *_cells(baseline, points)]
        for row in found.rows
        for i, baseline in enumerate(row.baselines)
    ]


def settings(found: Confirmed) -> list[tuple[str, str]]:
    """Each finalist with its settings in words, and the tuned baseline with its own."""
    tuned = [("tuned alone", found.tuned)] if found.tuned else []
    return [*((row.trial, describe(row.values)) for row in found.rows), *tuned]


def notes(found: Confirmed) -> list[str]:
    """What the numbers are, and what they are good to."""
    told = [
        f"Means and paired differences of {len(found.seeds)} seeds, +- 95 % (t); p of the paired t "
        "test, with Holm over the finalists, and of all sign flips; r within pairs."
    ]
    chosen = next(row for row in found.rows if row.trial == found.chosen)
    if chosen.split_error is not None:
        told.append(
            f"{found.images} images leave +- {100 * chosen.split_error:.1f} points around any one "
            "accuracy, whatever the seeds (95 %, binomial)."
        )
    if len(found.alike) > 1:
        told.append(f"Not told apart by these seeds: {', '.join(found.alike)}.")
    missing = _missing(found.rows)
    if missing:
        told.append(f"Without a score: {', '.join(missing)}.")
    how = (
        "the search's best, since validation images were trained on"
        if found.with_validation
        else "best by validation over the new seeds"
    )
    return [*told, f"The verdict is on {found.chosen}, {how}; no test image had a say in that."]


def _cells(baseline: Baseline, points: bool) -> list[str]:
    epochs = f"{baseline.equal} ({baseline.epochs})"
    gain = baseline.gain
    if gain is None:
        return [epochs, _mean(baseline.mean, points), "-", "-", "-", "-", "-"]
    return [
        epochs,
        _mean(baseline.mean, points),
        _interval(gain, points, sign="+"),
        *(_number(p, "{:.2g}") for p in (gain.p_value, baseline.p_holm, gain.p_sign_flip)),
        _number(gain.correlation, "{:.2f}"),
    ]


def _mean(mean: Mean | None, points: bool) -> str:
    return "-" if mean is None else _interval(mean, points)


def _interval(found: Mean | Difference, points: bool, sign: str = "-") -> str:
    scale, digits = (100, 1) if points else (1, 4)
    width = "" if found.half_width is None else f" +- {scale * found.half_width:.{digits}f}"
    return f"{scale * found.mean:{sign}.{digits}f}{width}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _missing(rows: list[Row]) -> list[str]:
    return [row.trial for row in rows if row.mean is None or row.mean.count < len(row.trials)]
