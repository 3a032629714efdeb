"""`samtune run`: a new study, from its file to its summary."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated

import typer

from samtune import working_copy
from samtune.cli.console import new_console
from samtune.cli.options import (
    Address,
    JsonEvents,
    Overrides,
    Plugins,
    Quiet,
    Storage,
    StudyFile,
    TimeBudget,
    Verbose,
    WaitForResources,
)
from samtune.cli.session import attend, detail_of, time_left
from samtune.errors import SamtuneError
from samtune.study import DEFAULT_STORAGE, StudyFolder


def run(
    file: StudyFile,
    overrides: Overrides = None,
    name: Annotated[
        str | None, typer.Option(help="Another name than the file's.", show_default=False)
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="How many trials to sample.", show_default=False)
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    address: Address = None,
    time_budget: TimeBudget = None,
    wait_for_resources: WaitForResources = None,
    plugin: Plugins = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Then confirm it, as `samtune confirm` does.")
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Check and preview only.")] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    json_events: JsonEvents = False,
) -> None:
    """Run a study: search, record, and say which setting won and by how much."""
    from samtune.cli.baseline import tune_and_sum_up
    from samtune.cli.summary import print_preview, print_warm_start
    from samtune.config.study_file import read_study
    from samtune.preflight import preview
    from samtune.tuning.baseline import check_free
    from samtune.tuning.run import Session

    detail = detail_of(verbose=verbose, quiet=quiet, json_events=json_events)
    extra = [f"name={json.dumps(name)}"] if name is not None else []
    extra += [f"study.trials={trials}"] if trials is not None else []
    config = read_study(file, [*(overrides or []), *extra], plugin)
    StudyFolder.check_free(storage, config.name)
    check_free(storage, config)
    left = time_left(time_budget)
    console = new_console(silent=not detail.previews)
    found = preview(config, storage, timed=dry_run, self_check=True, fetch=not dry_run)
    print_preview(console, found)
    print_warm_start(console, config, storage)
    if dry_run:
        if found.missing and not found.fetchable:
            raise SamtuneError(found.missing)
        return
    where = storage / config.name
    console.print(f"  folder     {working_copy.address(where)}, MLflow {_tracking_address()}")
    session = Session(
        address,
        plugin_folder=file.absolute().parent,
        wait_for_resources_s=wait_for_resources or 0.0,
    )
    attend(
        lambda listener: replace(session, listener=listener, time_budget_s=left()).begin(
            config, storage
        ),
        detail=detail,
        config=config,
        before=None,
        to_run=config.wanted_trials + config.study.has_baseline,
        folder=where,
        sums_up=config.study.baseline != "tuned",
    )
    if config.study.baseline == "tuned":
        tune_and_sum_up(
            config.name,
            storage=storage,
            detail=detail,
            console=console,
            session=replace(session, time_budget_s=left()),
            plugins=config.plugins,
        )
    if not confirm:
        return
    from samtune.cli.confirm import confirmed_study, print_found
    from samtune.tuning.confirm import Wanted

    result = confirmed_study(
        config.name,
        Wanted(),
        session,
        storage=storage,
        plugins=config.plugins,
        detail=detail,
    )
    print_found(result, detail)


def _tracking_address() -> str:
    from samtune.tracking import tracking_uri, without_password

    return without_password(tracking_uri())
