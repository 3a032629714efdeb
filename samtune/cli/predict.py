"""`samtune predict`: what an exported model says of single images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samtune.cli.console import new_console, print_json
from samtune.cli.options import AsJson, ExportedFile, Plugins


def predict(
    path: ExportedFile,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 3,
    masks: Annotated[
        Path, typer.Option(help="Folder for the masks of a segmentation model.")
    ] = Path(),
    force: Annotated[bool, typer.Option(help="Replace existing masks.")] = False,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """Name the classes of images with their probabilities, or write their masks."""
    from samtune.export import load_exported
    from samtune.export import predict as predictions
    from samtune.registry import load_plugins

    load_plugins(plugin or [], Path.cwd())
    model = load_exported(path)
    found = predictions(model, images, masks=masks, overwrite=force)
    if as_json:
        print_json(
            [
                {
                    "image": str(one.image),
                    "class": next(iter(one.probabilities)) if one.mask is None else None,
                    "probabilities": one.probabilities,
                    "mask": None if one.mask is None else str(one.mask),
                }
                for one in found
            ]
        )
        return
    console = new_console()
    about = model.about
    console.print(
        f"{path}: {about.model['name']}, {about.study} {about.trial}; images are resized to "
        f"{about.input.in_words}",
        markup=False,
        soft_wrap=True,
    )
    for one in found:
        if one.mask is None:
            shown = [f"{name} {p:.3f}" for name, p in list(one.probabilities.items())[:top]]
            line = f"{one.image}: {', '.join(shown)}"
        else:
            shown = [f"{name} {share:.1%}" for name, share in one.probabilities.items() if share]
            line = f"{one.image}: {', '.join(shown)} -> {one.mask}"
        console.print(line, markup=False, soft_wrap=True)
