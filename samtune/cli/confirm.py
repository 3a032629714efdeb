"""`samtune confirm`: what SAM gains, with fresh seeds, on images that nobody has seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samtune.cli.console import new_console, print_json
from samtune.cli.options import (
    Address,
    AsJson,
    ForceUnlock,
    JsonEvents,
    Plugins,
    Quiet,
    RetryFailed,
    Storage,
    StudyName,
    TimeBudget,
    Verbose,
    WaitForResources,
)
from samtune.cli.session import Detail, attend, detail_of
from samtune.errors import SamtuneError
from samtune.study import DEFAULT_STORAGE

if TYPE_CHECKING:
    from samtune.analysis.confirmed import Confirmed
    from samtune.tuning.confirm import Wanted
    from samtune.tuning.run import Session


def confirm(
    name: StudyName,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="How many finalists; default is 3.", show_default=False),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="How many runs of each; default is 5.", show_default=False),
    ] = None,
    with_validation: Annotated[
        bool, typer.Option("--with-validation", help="Train on the validation images, too.")
    ] = False,
    confirm_as: Annotated[
        str | None,
        typer.Option("--name", help="Another name than NAME-confirm.", show_default=False),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    address: Address = None,
    time_budget: TimeBudget = None,
    wait_for_resources: WaitForResources = None,
    plugin: Plugins = None,
    retry_failed: RetryFailed = False,
    read_test_again: Annotated[
        bool, typer.Option(help="Read the test split although it was read before.")
    ] = False,
    force_unlock: ForceUnlock = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    json_events: JsonEvents = False,
    as_json: AsJson = False,
) -> None:
    """Train the best trials and their baselines anew, and say what SAM gains on test images.

    The same command goes on after any ending, and shows the table again once it is done.
    """
    from samtune.tuning.confirm import Wanted
    from samtune.tuning.run import Session

    detail = detail_of(verbose=verbose, quiet=quiet or as_json, json_events=json_events)
    found = confirmed_study(
        name,
        Wanted(top, seeds, with_validation or None, read_test_again),
        Session(
            address,
            time_budget_s=time_budget,
            wait_for_resources_s=wait_for_resources or 0.0,
            force_unlock=force_unlock,
            retry_failed=retry_failed,
        ),
        confirm_as=confirm_as,
        storage=storage,
        plugins=plugin or [],
        detail=detail,
    )
    if as_json:
        print_json(found.as_json())
    else:
        print_found(found, detail)


def print_found(found: Confirmed, detail: Detail) -> None:
    """What a confirmation came to, as the session was shown."""
    from samtune.cli.confirmed import print_confirmed
    from samtune.cli.lines import print_event

    if detail is Detail.EVENTS:
        print_event("confirmed", **found.as_json())
    else:
        print_confirmed(new_console(), found)


def confirmed_study(
    name: str,
    wanted: Wanted,
    session: Session,
    *,
    confirm_as: str | None = None,
    storage: Path,
    plugins: list[str],
    detail: Detail,
) -> Confirmed:
    """Runs what a confirmation has left to run, showing it, and concludes.

    Args:
        session: how to run it; where plugins are looked for is the searched study's to say.
    """
    from samtune import tracking
    from samtune.cli.tracked import print_tracking
    from samtune.config.confirm import confirmation_name
    from samtune.study import Study, open_folder
    from samtune.tuning.confirm import conclude, plan

    searched = open_folder(storage, name)
    plugin_folder = searched.plugin_folder(plugins)
    config = searched.checked_config(plugins, plugin_folder)
    folder, begun = plan(searched, config, confirm_as or confirmation_name(name), wanted)
    console = new_console(silent=not detail.previews)
    study = Study(folder, begun) if folder else None

    def start(listener: Any) -> Study:
        ours = replace(session, listener=listener, plugin_folder=plugin_folder)
        return ours.begin(begun, storage) if folder is None else ours.run(folder, begun)

    to_run = begun.wanted_trials
    if study is not None:
        to_run = study.left + (len(study.failed) if session.retry_failed else 0)
    if study is None or to_run or study.is_running:
        _print_plan(console, begun, to_run)
        if folder is None and (left := Study(searched, config).left):
            again = searched.command("resume")
            note = f"note: {left} trials of {name} were not run to their end; `{again}` does"
            console.print(note, style="yellow", markup=False, soft_wrap=True)
        study = attend(
            start,
            detail=detail,
            config=begun,
            before=study,
            to_run=to_run,
            folder=storage / begun.name,
            sums_up=False,
        )
    if study.left:
        raise SamtuneError(
            f"{study.left} trials of {study.name!r} are still to be run: go on with "
            f"`{study.folder.command('resume')}`"
        )
    found = conclude(searched, study, again=wanted.read_test_again)
    with tracking.following(study.folder.root, begun.plugins, plugin_folder):
        pass  # MLflow has the trials already; now it is told what came of them
    print_tracking(console, study.folder.root)
    return found


def _print_plan(console: Any, config: Any, to_run: int) -> None:
    confirm = config.confirm
    count, finalists = len(confirm.seeds), [f.trial for f in confirm.finalists]
    seeds = f"{confirm.seeds[0]} to {confirm.seeds[-1]}" if count > 1 else f"{confirm.seeds[0]}"
    console.print(
        f"\n[bold]study {config.name}[/]: {', '.join(finalists)} of {confirm.study} and the "
        f"optimizer alone at their settings, seeds {seeds}: {to_run} trials to run",
        soft_wrap=True,
    )
