"""The options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samtune.cli.console import seconds_of
from samtune.study import DEFAULT_STORAGE, StudyFolder, study_names
from samtune.study.storage import storage_path

StudyFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="The study file.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Override the file: training.epochs=30, study.trials=8, "
        "'search_space.sam.rho={float: [0.1, 1]}'.",
        show_default=False,
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Change what leaves past trials as they are: study.trials=40, study.resources.cpus=2, "
        "'search_space.sam.rho={float: [0.01, 2]}'.",
        show_default=False,
    ),
]


def _studies(ctx: typer.Context, incomplete: str) -> list[str]:
    """What a shell completes a study's name to."""
    names = study_names(Path(ctx.params.get("storage") or DEFAULT_STORAGE))
    return [name for name in names if name.startswith(incomplete)]


def _trials(ctx: typer.Context, incomplete: str) -> list[str]:
    """What a shell completes a trial's key to."""
    root = Path(ctx.params.get("storage") or DEFAULT_STORAGE) / (ctx.params.get("name") or "")
    return [trial.key for trial in StudyFolder(root).trials() if trial.key.startswith(incomplete)]


StudyName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The study.", show_default=False, autocompletion=_studies),
]
TrialKey = Annotated[
    str | None,
    typer.Argument(metavar="[TRIAL]", help="A trial's key, such as t0007.", autocompletion=_trials),
]
StudyNames = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME...", help="The studies.", show_default=False, autocompletion=_studies
    ),
]
Storage = Annotated[
    Path,
    typer.Option(
        parser=storage_path,
        metavar="FOLDER",
        envvar="SAMTUNE_STORAGE",
        show_envvar=False,
        help="The folder that holds studies, or s3://BUCKET/FOLDER; on a cluster, one every node "
        "sees.",
    ),
]


def _checked_address(address: str | None) -> str | None:
    from samtune.tuning.cluster import check_address

    check_address(address)
    return address


Address = Annotated[
    str | None,
    typer.Option(
        callback=_checked_address,
        help="Address of a Ray cluster; default is RAY_ADDRESS, else this machine.",
        show_default=False,
    ),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", metavar="MODULE", help="Import this module of yours first.", show_default=False
    ),
]
TimeBudget = Annotated[
    float | None,
    typer.Option(
        parser=seconds_of,
        metavar="DURATION",
        help="End cleanly after this long: 90m, 8h, 2d.",
        show_default=False,
    ),
]
WaitForResources = Annotated[
    float | None,
    typer.Option(
        "--wait-for-resources",
        parser=seconds_of,
        metavar="DURATION",
        help="Wait this long for a first node that holds a trial: 10m, 1h.",
        show_default=False,
    ),
]
RetryFailed = Annotated[
    bool, typer.Option(help="Run the trials again that failed or ran out of memory.")
]
ForceUnlock = Annotated[
    bool, typer.Option(help="Take over from a driver on another machine that is surely gone.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print a line for each epoch.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print the summary alone.")]
JsonEvents = Annotated[
    bool, typer.Option("--json-events", help="Print every event as a line of JSON, and no more.")
]
ExportedFile = Annotated[
    Path,
    typer.Argument(metavar="PATH", help="What `samtune export` wrote: a file, or MLflow's folder."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
