"""`samtune confirm`: what SAM gains, with fresh seeds, on images that nobody has seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samtune.cli.console import describe, new_console, print_json, table
from samtune.cli.options import Address, AsJson, Plugins, Storage, StudyName, TimeBudget
from samtune.errors import SamtuneError
from samtune.study import DEFAULT_STORAGE

if TYPE_CHECKING:
    from samtune.analysis.confirmed import Baseline, Confirmed, Row
    from samtune.analysis.statistics import Mean
    from samtune.tuning.confirm import Wanted


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
    plugin: Plugins = None,
    retry_failed: Annotated[
        bool, typer.Option(help="Run the trials again that failed or ran out of memory.")
    ] = False,
    read_test_again: Annotated[
        bool, typer.Option(help="Read the test split although it was read before.")
    ] = False,
    force_unlock: Annotated[
        bool, typer.Option(help="Take over from a driver on another machine that is surely gone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train the best trials and their baselines anew, and say what SAM gains on test images.

    The same command goes on after any ending, and shows the table again once it is done.
    """
    from samtune.tuning.confirm import Wanted

    found = confirmed_study(
        name,
        Wanted(top, seeds, with_validation or None, read_test_again),
        confirm_as=confirm_as,
        storage=storage,
        address=address,
        time_budget=time_budget,
        plugins=plugin or [],
        retry_failed=retry_failed,
        force_unlock=force_unlock,
        quiet=as_json,
    )
    if as_json:
        print_json(found.as_json())
    else:
        print_confirmed(new_console(), found)


def confirmed_study(
    name: str,
    wanted: Wanted,
    *,
    confirm_as: str | None = None,
    storage: Path = DEFAULT_STORAGE,
    address: str | None = None,
    time_budget: str | None = None,
    plugins: list[str],
    retry_failed: bool = False,
    force_unlock: bool = False,
    quiet: bool = False,
) -> Confirmed:
    """Runs what a confirmation has left to run, showing it, and concludes.

    Args:
        quiet: show nothing.
    """
    from samtune import tracking
    from samtune.cli.console import seconds_of
    from samtune.cli.run import watched
    from samtune.cli.tracked import print_tracking
    from samtune.study import Study, StudyFolder
    from samtune.tuning import resume_study, run_study
    from samtune.tuning.confirm import conclude, confirmation_name, plan
    from samtune.tuning.run import Silent

    searched = StudyFolder.open(storage, name)
    plugin_folder = searched.plugin_folder(plugins)
    config = searched.checked_config(plugins, plugin_folder)
    folder, begun = plan(searched, config, confirm_as or confirmation_name(name), wanted)
    console = new_console()
    budget = seconds_of(time_budget) if time_budget else None
    study = Study(folder, begun) if folder else None

    def start(listener: Any) -> Study:
        if folder is None:
            return run_study(
                begun,
                storage=storage,
                address=address,
                listener=listener,
                plugin_folder=plugin_folder,
                time_budget_s=budget,
            )
        return resume_study(
            begun.name,
            storage=storage,
            retry_failed=retry_failed,
            address=address,
            listener=listener,
            plugins=plugins,
            plugin_folder=plugin_folder,
            force_unlock=force_unlock,
            time_budget_s=budget,
        )

    to_run = begun.wanted_trials
    if study is not None:
        to_run = study.left + (len(study.failed) if retry_failed else 0)
    if study is None or to_run or study.is_running:
        root = storage / begun.name
        if quiet:
            study = start(Silent())
        else:
            _print_plan(console, begun, to_run)
            study = watched(console, start, config=begun, before=study, to_run=to_run, folder=root)
    if study.left:
        raise SamtuneError(
            f"{study.left} trials of {study.name!r} are still to be run: go on with "
            f"`{study.folder.command('resume')}`"
        )
    found = conclude(searched, study, again=wanted.read_test_again)
    with tracking.following(study.folder.root, begun.plugins, plugin_folder):
        pass  # MLflow has the trials already; now it is told what came of them
    if not quiet:
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


def print_confirmed(console: Any, found: Confirmed) -> None:
    """The table, what it rests on, and the verdict."""
    points = found.mode == "max"
    rows = table(
        "trial", f">{found.metric}", "against", ">alone", ">gain", ">p", ">Holm", ">flips", ">r"
    )
    for row in found.rows:
        for i, baseline in enumerate(row.baselines):
            head = [row.trial, _mean(row.mean, points)] if not i else ["", ""]
            rows.add_row(*head, *_cells(baseline, points))
    console.print(f"\n[bold]study {found.study}, confirmed[/] on {found.images} test images")
    for row in found.rows:
        console.print(f"  {row.trial:10} {describe(row.values)}", markup=False, soft_wrap=True)
    console.print(rows)
    for line in _notes(found):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"\n[bold]{found.verdict}[/]", soft_wrap=True)


def _cells(baseline: Baseline, points: bool) -> list[str]:
    epochs = f"{baseline.equal} ({baseline.epochs})"
    gain = baseline.gain
    if gain is None:
        return [epochs, _mean(baseline.mean, points), "-", "-", "-", "-", "-"]
    scale, digits = (100, 1) if points else (1, 4)
    shown = f"{scale * gain.mean:+.{digits}f}"
    if gain.half_width is not None:
        shown += f" +- {scale * gain.half_width:.{digits}f}"
    return [
        epochs,
        _mean(baseline.mean, points),
        shown,
        *(_number(p, "{:.2g}") for p in (gain.p_value, baseline.p_holm, gain.p_sign_flip)),
        _number(gain.correlation, "{:.2f}"),
    ]


def _mean(mean: Mean | None, points: bool) -> str:
    if mean is None:
        return "-"
    scale, digits = (100, 1) if points else (1, 4)
    width = "" if mean.half_width is None else f" +- {scale * mean.half_width:.{digits}f}"
    return f"{scale * mean.mean:.{digits}f}{width}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _notes(found: Confirmed) -> list[str]:
    """What the numbers are, and what they are good to."""
    notes = [
        f"Means and paired differences of {len(found.seeds)} seeds, +- 95 % (t); p of the paired t "
        "test, with Holm over the finalists, and of all sign flips; r within pairs."
    ]
    chosen = next(row for row in found.rows if row.trial == found.chosen)
    if chosen.split_error is not None:
        notes.append(
            f"{found.images} images leave +- {100 * chosen.split_error:.1f} points around any one "
            "accuracy, whatever the seeds (95 %, binomial)."
        )
    if len(found.alike) > 1:
        notes.append(f"Not told apart by these seeds: {', '.join(found.alike)}.")
    missing = _missing(found.rows)
    if missing:
        notes.append(f"Without a score: {', '.join(missing)}.")
    how = (
        "the search's best, since validation images were trained on"
        if found.with_validation
        else "best by validation over the new seeds"
    )
    return [*notes, f"The verdict is on {found.chosen}, {how}; no test image had a say in that."]


def _missing(rows: list[Row]) -> list[str]:
    return [row.trial for row in rows if row.mean is None or row.mean.count < len(row.trials)]
