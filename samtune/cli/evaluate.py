"""`samtune evaluate`: what an exported model is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samtune.cli.console import new_console, print_json, table
from samtune.cli.options import AsJson, ExportedFile, Plugins
from samtune.errors import SamtuneError


def evaluate(
    path: ExportedFile,
    split: Annotated[str, typer.Option(help="Of the model's own data set: val, or train.")] = "val",
    images: Annotated[
        Path | None,
        typer.Option(
            help="Images of yours instead: a folder with one folder a class, or with images "
            "and masks.",
            show_default=False,
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Where the data set lies now, if it was moved.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """Measure an exported model on a split of its data set, or on a folder of images."""
    from samtune.export import evaluate_folder, evaluate_split, load_exported
    from samtune.registry import load_plugins

    if images is not None and (root is not None or split != "val"):
        raise SamtuneError("--images names other images: leave out --split and --root")
    load_plugins(plugin or [], Path.cwd())
    model = load_exported(path)
    about = model.about
    if images is not None:
        found, where = evaluate_folder(model, images), str(images)
    else:
        found, where = evaluate_split(model, split, root), split
    is_recorded = images is None and split == "val"
    recorded = {
        name: about.metrics[f"val_{name}"]
        for name in found.metrics
        if is_recorded and f"val_{name}" in about.metrics
    }
    trained_on = split == "train" or _trains_on_validation(about.config)
    if as_json:
        print_json(
            {
                "path": str(path),
                "study": about.study,
                "trial": about.trial,
                "where": where,
                "images": found.images,
                "metrics": found.metrics,
                "recorded": recorded,
                "trained_on": images is None and trained_on,
            }
        )
        return
    console = new_console()
    dataset = where if images is not None else f"{where} of {about.config['dataset']['name']}"
    console.print(
        f"{path}: {about.model['name']}, {about.study} {about.trial}; {dataset}, "
        f"{found.images} images"
        + (f", resized to {about.input.in_words}" if images is not None else ""),
        markup=False,
        soft_wrap=True,
    )
    rows = table("metric", ">value", *([">recorded"] if recorded else []))
    for name, value in found.metrics.items():
        more = [f"{recorded[name]:.4f}" if name in recorded else "-"] if recorded else []
        rows.add_row(name, f"{value:.4f}", *more)
    console.print(rows)
    if images is None and trained_on:
        console.print("The model was trained on these images: they do not say how good it is.")


def _trains_on_validation(config: dict[str, object]) -> bool:
    training = config.get("training")
    return isinstance(training, dict) and bool(training.get("with_validation"))
