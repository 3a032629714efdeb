"""`samtune init`: a study file to begin with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samtune.cli.console import new_console
from samtune.cli.options import Plugins
from samtune.errors import SamtuneError


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The study file to write.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings of the trial: dataset.root=photos, training.epochs=60.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="See `samtune models`.")] = "wide_resnet",
    dataset: Annotated[str, typer.Option(help="See `samtune datasets`.")] = "digits",
    variant: Annotated[str, typer.Option(help="sam, asam, sam_on, msam or fsam.")] = "sam",
    plugin: Plugins = None,
) -> None:
    """Write a commented study file for a model and a data set."""
    import samtune.data
    import samtune.models  # noqa: F401 - importing registers
    from samtune.config.study_file import check_study
    from samtune.config.yaml_reader import parse_yaml
    from samtune.files import write_atomically
    from samtune.preflight.starter import starter
    from samtune.preflight.warnings import USUAL_RHO
    from samtune.registry import load_plugins

    if file.exists():
        raise SamtuneError(f"{file} exists: name another file, or edit it")
    if variant not in USUAL_RHO:
        raise SamtuneError(f"--variant {variant}: there are {', '.join(USUAL_RHO)}")
    load_plugins(plugin or [], Path.cwd())
    text = starter(model, dataset, variant=variant, file=str(file), settings=settings or [])
    if plugin:
        text += f"plugins: [{', '.join(plugin)}]\n"
    check_study(parse_yaml(text, str(file)), file.absolute().parent)
    write_atomically(file, text.encode())
    new_console().print(
        f"{file} is written. Look into it, then: samtune check {file}", markup=False, soft_wrap=True
    )
