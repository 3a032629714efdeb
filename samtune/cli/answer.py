"""What a study's trials come to, in words."""

from __future__ import annotations

from rich.console import Console

from samtune.analysis import Answer, Response
from samtune.analysis.pareto import (
    pareto_columns,
    pareto_in_words,
    pareto_rows,
    pareto_set,
)
from samtune.analysis.results import slice_columns, slice_rows
from samtune.analysis.tuned import tuned_in_words
from samtune.cli.console import say, table
from samtune.study import Study


def print_answer(console: Console, found: Answer) -> None:
    """Which rho to take, whether the right trials were stopped, and what speaks against it."""
    if found.response:
        _print_response(console, found.response)
    if found.audit:
        say(console, found.audit.sentence)
    for warning in found.warnings:
        say(console, warning.sentence, "yellow")


def _print_response(console: Console, found: Response) -> None:
    say(console, found.sentence)
    if found.rho is not None and found.slices:
        rows = table(*slice_columns(found))
        for row in slice_rows(found):
            rows.add_row(*row)
        console.print(rows)


def print_pareto(console: Console, study: Study) -> None:
    """The trials that none beats in all of `study.metrics`, where there are several."""
    if found := pareto_set(study):
        say(console, pareto_in_words(found))
        rows = table(*pareto_columns(found))
        for row in pareto_rows(study, found):
            rows.add_row(*row)
        console.print(rows)


def print_tuned(console: Console, study: Study) -> None:
    """What tuning the optimizer alone came to, where that was asked for."""
    if sentence := tuned_in_words(study):
        # Unwrapped, since it may hold a long command, which is to be copied whole.
        console.print(sentence, markup=False, soft_wrap=True)
