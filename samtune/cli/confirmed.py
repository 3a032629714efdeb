"""What a confirmation found, as one reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from samtune.cli.console import say, table
from samtune.report import confirmed as shown

if TYPE_CHECKING:
    from samtune.analysis.confirmed import Confirmed


def print_confirmed(console: Any, found: Confirmed) -> None:
    """The table, what it rests on, and the verdict."""
    rows = table(*shown.columns(found))
    for row in shown.rows(found):
        rows.add_row(*row)
    console.print(f"\n[bold]study {found.study}, confirmed[/] on {found.images} test images")
    for trial, settings in shown.settings(found):
        console.print(f"  {trial:10} {settings}", markup=False, soft_wrap=True)
    console.print(rows)
    for line in shown.notes(found):
        say(console, line)
    say(console, f"\n{found.verdict}", "bold")
