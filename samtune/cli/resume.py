"""`samtune resume`: goes on after any ending, or extends a finished study."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samtune.cli.console import new_console, print_damage
from samtune.cli.options import (
    Address,
    Changes,
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
from samtune.errors import SamtuneError
from samtune.study import DEFAULT_STORAGE

if TYPE_CHECKING:
    from samtune.study.settings import Change


def resume(
    name: StudyName,
    overrides: Changes = None,
    trials: Annotated[
        str | None,
        typer.Option(metavar="+N", help="Add this many trials, as in +20.", show_default=False),
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    address: Address = None,
    time_budget: TimeBudget = None,
    wait_for_resources: WaitForResources = None,
    plugin: Plugins = None,
    retry_failed: RetryFailed = False,
    force_unlock: ForceUnlock = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    json_events: JsonEvents = False,
) -> None:
    """Go on with a study after a crash, a Ctrl-C, or to add trials."""
    more = _more_trials(trials)
    from samtune import tracking
    from samtune.cli.baseline import tune_and_sum_up
    from samtune.cli.lines import print_event
    from samtune.cli.session import Detail, attend, detail_of, time_left
    from samtune.cli.show import study_json
    from samtune.cli.summary import print_warm_start
    from samtune.config.schema import MOST_TRIALS
    from samtune.study import Study, open_folder
    from samtune.study.manifest import other_versions
    from samtune.study.settings import changes_between
    from samtune.tuning.baseline import tuning_of
    from samtune.tuning.run import Session, Silent, check_usable, extended

    detail = detail_of(verbose=verbose, quiet=quiet, json_events=json_events)
    folder = open_folder(storage, name)
    plugin_folder = folder.plugin_folder(plugin or [])
    accepted = folder.config()
    if accepted.belongs_to:
        kind = "a confirmation" if accepted.confirm else f"the baseline of {accepted.belongs_to}"
        raise SamtuneError(f"study {name!r} is {kind}: go on with `{folder.command('resume')}`")
    config = extended(folder.checked_config(plugin or [], plugin_folder, overrides or []), more)
    if config.study.trials > MOST_TRIALS:
        raise SamtuneError(f"--trials {trials}: a study has at most {MOST_TRIALS:,} trials")
    before = Study(folder, config)
    console = new_console(silent=not detail.previews)
    print_damage(new_console(silent=detail is Detail.EVENTS), before.damage)
    to_run = before.left + (len(before.failed) if retry_failed else 0)
    tuning = tuning_of(before)  # at once: it may refuse what has changed
    to_tune = tuning.to_run(retry_failed=retry_failed) if tuning and not to_run else 0
    changes = changes_between(accepted, config)
    left = time_left(time_budget)
    session = Session(
        address,
        plugin_folder=plugin_folder,
        wait_for_resources_s=wait_for_resources or 0.0,
        force_unlock=force_unlock,
        retry_failed=retry_failed,
    )

    def start(listener: Any) -> Study:
        return replace(session, listener=listener, time_budget_s=left()).run(folder, config)

    if not to_run and not to_tune and not before.is_running:
        check_usable(before)
        if changes:
            start(Silent())
            _print_changes(console, changes)
        said = f"Study {name} is complete: {len(before.trials)} trials. There is nothing to do; "
        if spent := before.budget.spent:
            setting = spent.partition(",")[0]
            said += f"{spent}: give another with `{folder.command('resume', f'{setting}=VALUE')}`."
        else:
            said += f"add trials with `{folder.command('resume', '--trials +20')}`."
        if detail is Detail.EVENTS:
            print_event("study", **study_json(before))
        else:
            new_console().print(said, soft_wrap=True, markup=False)
        return
    done = sum(t.outcome is not None for t in before.trials)
    console.print(f"study {name}: {done} trials are done, {to_run} to go")
    print_warm_start(console, config, storage)
    _print_changes(console, changes)
    if other := other_versions(folder.manifest.versions):
        console.print(f"[yellow]  note       {other}[/]", soft_wrap=True)
    if moved := tracking.store_of(folder.root).change:
        console.print(f"[yellow]{moved}.[/]", soft_wrap=True)
    if to_tune:
        start(Silent())  # no trial is left; what has changed is written down
    else:
        attend(
            start,
            detail=detail,
            config=config,
            before=before,
            to_run=to_run,
            folder=folder.root,
            sums_up=config.study.baseline != "tuned",
        )
    if config.study.baseline == "tuned":
        tune_and_sum_up(
            name,
            storage=storage,
            detail=detail,
            console=console,
            session=replace(session, time_budget_s=left()),
            plugins=plugin or (),
        )


def _print_changes(console: Any, changes: Iterable[Change]) -> None:
    for change in changes:
        console.print(f"  changed    {change}", markup=False, soft_wrap=True)


def _more_trials(text: str | None) -> int:
    if text is None:
        return 0
    if not re.fullmatch(r"\+0*[1-9][0-9]{0,99}", text):
        raise SamtuneError(f"--trials {text}: write how many to add, as in --trials +20")
    return int(text)
