"""What a study's trials come to, in words."""

from __future__ import annotations

from rich.console import Console

from samtune.analysis import audit, response, warnings_of
from samtune.analysis.pareto import (
    pareto_columns,
    pareto_in_words,
    pareto_rows,
    pareto_set,
)
from samtune.analysis.tuned import tuned_in_words
from samtune.cli.console import table
from samtune.report.answer import slice_columns, slice_rows
from samtune.study import Study


def print_response(console: Console, study: Study) -> None:
    """Which rho to take, and which at other settings where they were varied."""
    found = response(study)
    if found is None:
        return
    console.print(found.sentence, markup=False, soft_wrap=True)
    if found.rho is not None and found.slices:
        rows = table(*slice_columns(found))
        for row in slice_rows(found):
            rows.add_row(*row)
        console.print(rows)


def print_pareto(console: Console, study: Study) -> None:
    """The trials that none beats in all of `study.metrics`, where there are several."""
    if found := pareto_set(study):
        console.print(pareto_in_words(found), markup=False, soft_wrap=True)
        rows = table(*pareto_columns(found))
        for row in pareto_rows(study, found):
            rows.add_row(*row)
        console.print(rows)


def print_tuned(console: Console, study: Study) -> None:
    """What tuning the optimizer alone came to, where that was asked for."""
    if sentence := tuned_in_words(study):
        console.print(sentence, markup=False, soft_wrap=True)


def print_audit(console: Console, study: Study) -> None:
    """Whether the trial scheduler stopped the right trials, where that was looked into."""
    if found := audit(study):
        console.print(found.sentence, markup=False, soft_wrap=True)


def print_warnings(console: Console, study: Study) -> None:
    """A line for everything that speaks against the answer."""
    for warning in warnings_of(study):
        console.print(warning.sentence, style="yellow", markup=False, soft_wrap=True)
