"""`samtune stop`: ends a running study, or one trial of it, from any terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from samtune.cli.console import new_console
from samtune.cli.options import Storage, StudyName, TrialKey
from samtune.study import DEFAULT_STORAGE


def stop(
    name: StudyName,
    trial: TrialKey = None,
    wait: Annotated[bool, typer.Option(help="Return once it has ended.")] = True,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """End a running study after the current epochs, as Ctrl-C does, or one of its trials.

    The driver is asked through the study's folder, wherever it runs.
    """
    from samtune.study import open_study
    from samtune.study.requests import ask_to_stop, wait_until_stopped

    study = open_study(name, storage)
    ask_to_stop(study, trial)
    console = new_console()
    what = f"trial {trial}" if trial else "the study"
    told = f"{study.folder.driver} was asked to end {what} after the current epoch"
    console.print(f"{told}{'; waiting for it' if wait else ''}.", markup=False, soft_wrap=True)
    if not wait:
        return
    wait_until_stopped(study, trial)
    now = open_study(name, storage)
    if trial and (outcome := now.trial(trial).outcome):
        reason = f", {outcome.reason}" if outcome.reason else ""
        said = f"{trial} {outcome.state} after epoch {outcome.epochs}{reason}."
    elif now.left:
        said = f"Study {name}: {now.tally}. Go on with: {now.folder.command('resume')}"
    else:
        said = f"Study {name} is complete: {now.tally}."
    console.print(said, markup=False, soft_wrap=True)
