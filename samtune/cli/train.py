"""`samtune train`: one run of `trial:`, without Ray."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from samtune.cli.console import epoch_line, new_console
from samtune.cli.options import Overrides, Plugins, Storage, StudyFile
from samtune.errors import NoUsableTrialError
from samtune.study import DEFAULT_STORAGE


def train(
    file: StudyFile,
    overrides: Overrides = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the run; default is the file's with -train.")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    plugin: Plugins = None,
) -> None:
    """Train the file's `trial:` once, without Ray; the run is a study of one trial."""
    from samtune.config.study_file import read_study
    from samtune.models import fetch_pretrained
    from samtune.study import StudyFolder
    from samtune.study.single import train_single

    # It runs to its end, however the study's scheduler would judge it.
    alone = [*(overrides or []), "study.scheduler=none"]
    config = read_study(file, alone, plugin, for_search=False)
    fetch_pretrained(config.trial.model.name, **config.trial.model.params)
    run = f"{config.name}-train" if name is None else name
    console = new_console()
    precision = None
    try:
        for progress in train_single(config, run, storage, file.absolute().parent):
            if progress.outcome is None:
                if progress.precision != precision:  # it may change where a run goes on elsewhere
                    precision = progress.precision
                    shown = config.trial.training.precision_in_words([precision])
                    console.print(f"precision {shown}")
                epochs = config.trial.training.epochs
                line = epoch_line(progress.epoch, epochs, progress.metrics, progress.duration_s)
                console.print(line + (" (from before)" if progress.replayed else ""))
            elif progress.outcome.state != "finished":
                raise NoUsableTrialError(f"{progress.outcome.state}: {progress.outcome.reason}")
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on after the last epoch.", file=sys.stderr)
        raise
    folder = StudyFolder.open(storage, run)
    commands = (folder.command("show", "t0001"), folder.command("export", "-o model.pt"))
    console.print("next:  " + "\n       ".join(commands), soft_wrap=True)
