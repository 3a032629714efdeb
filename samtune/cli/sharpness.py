"""`samtune sharpness`: how flat the loss is around the best weights, beside the baseline's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from samtune.cli.console import new_console, print_json, say, table
from samtune.cli.options import AsJson, Plugins, Storage, StudyName
from samtune.study import DEFAULT_STORAGE

if TYPE_CHECKING:
    from samtune.sharpness import Sharpness
    from samtune.sharpness.measure import Watch

TRIALS_A_TABLE = 4


def sharpness(
    name: StudyName,
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TRIAL]...", help="As --trials.", show_default=False),
    ] = None,
    trials: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRIAL...",
            help="Trials by their keys, the one to compare first; default is the best and the "
            "baseline.",
            show_default=False,
        ),
    ] = None,
    rho: Annotated[
        list[float] | None,
        typer.Option(
            help="Measure the rise within this rho, for each trial; may be given again. Default is "
            "0.05 and the first trial's own.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            min=1, help="How many training images; default is 480 or less.", show_default=False
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many of them climb together; default is the study's batch size.",
            show_default=False,
        ),
    ] = None,
    grid: Annotated[
        int, typer.Option(min=0, max=31, help="Points a side of the landscape; 0 leaves it out.")
    ] = 15,
    seed: Annotated[int, typer.Option(min=0, help="Of images and random directions.")] = 0,
    storage: Storage = DEFAULT_STORAGE,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """Measure how the loss rises around the weights of the best trial and of its baseline.

    The loss rise within rho, the Hessian's largest eigenvalues and trace, and the landscapes that
    `samtune report` draws. What was asked before is read and not measured again.
    """
    from samtune.registry import load_plugins
    from samtune.sharpness import Wanted, question_of, read_sharpness
    from samtune.study import Study, StudyFolder

    folder = StudyFolder.open(storage, name)
    folder.check_plugins(plugin or [])
    load_plugins(plugin or [], folder.plugin_folder(plugin or []))
    study = Study(folder, folder.config())
    keys = [*(trials or []), *(more or [])]
    question = question_of(study, Wanted(keys, rho or [], images, batch_size, grid, seed))
    found = read_sharpness(study)
    if found is None or found.question != question:
        from samtune.sharpness.measure import measure

        with _progress(new_console(silent=as_json)) as watch:
            found = measure(study, question, watch)
    if as_json:
        print_json(asdict(found))
        return
    console = new_console()
    console.print(f"study {study.name}", markup=False)
    _print_found(console, found)
    report = folder.command("report")
    drawn = f"; `{report}` draws the landscapes" if grid else ""
    console.print(f"{folder.root / 'sharpness.json'}{drawn}", markup=False, soft_wrap=True)


def _print_found(console: Console, found: Sharpness) -> None:
    from samtune.report import sharpness as shown

    say(console, shown.measured(found))
    for start in range(0, len(found.trials), TRIALS_A_TABLE):
        few = replace(found, trials=found.trials[start : start + TRIALS_A_TABLE])
        rows = table(*shown.columns(few))
        for row in shown.rows(few):
            rows.add_row(*row)
        console.print()
        console.print(rows)
    say(console, f"\n{shown.sentence(found)}")
    for line in shown.notes(found):
        say(console, line)


@contextmanager
def _progress(console: Console) -> Iterator[Watch]:
    """A bar for each stretch of work on a terminal; elsewhere nothing."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bars:

        def watch(what: str, total: int) -> Callable[[], None]:
            for old in bars.task_ids:
                bars.remove_task(old)
            task = bars.add_task(what, total=total)
            return lambda: bars.advance(task)

        yield watch
