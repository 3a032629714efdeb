"""`samtune datasets`: the registered datasets with their parameters."""

from __future__ import annotations

from typing import Annotated

import typer

from samtune.cli.options import AsJson, Plugins


def datasets(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Show this one's parameters.")
    ] = None,
    plugin: Plugins = None,
    as_json: AsJson = False,
) -> None:
    """List the datasets, or one dataset's parameters."""
    import samtune.data  # noqa: F401 - importing registers
    from samtune.cli.registry_view import show_registry
    from samtune.registry import DATASETS, load_plugins

    load_plugins(plugin or [])
    show_registry(DATASETS, name, as_json)
