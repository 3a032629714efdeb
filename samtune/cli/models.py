"""`samtune models`: the registered models with their parameters."""

from __future__ import annotations

from typing import Annotated

import typer

from samtune.cli.options import AsJson, Plugins


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Show this one's parameters.")
    ] = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """List the models, or one model's parameters."""
    import samtune.models  # noqa: F401 - importing registers
    from samtune.cli.registry_view import show_registry
    from samtune.registry import MODELS, load_plugins

    load_plugins(plugin or [])
    show_registry(MODELS, name, as_json)
