"""What MLflow has of a study once its session is over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from samtune.study import StudyFolder
from samtune.working_copy import address


def print_tracking(console: Any, root: Path) -> None:
    """Waits for MLflow to take the rest, and says what it has not taken."""
    from samtune.tracking import wait_until_shipped

    if not (root / "manifest.json").exists():
        return  # the study could not even begin
    with console.status("MLflow takes the rest ..."):
        report = wait_until_shipped(root)
    again = StudyFolder(root.absolute()).command("sync")
    if report.missing:
        console.print(
            f"[yellow]MLflow has not taken {report.missing} yet; send the rest with `{again}`. "
            f"See {address(root / 'tracking.log')}.[/]",
            soft_wrap=True,
        )
    if report.refused:
        console.print(
            f"[yellow]MLflow refuses {report.refusals}. `{again}` tries once more.[/]",
            soft_wrap=True,
        )
    for note in report.notes:
        console.print(f"[yellow]{note}.[/]", soft_wrap=True)
