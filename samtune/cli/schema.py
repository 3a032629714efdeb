"""`samtune schema`: what an editor needs to complete and check study files."""

from __future__ import annotations

from pathlib import Path

from samtune.cli.console import print_json
from samtune.cli.options import Plugins


def schema(plugin: Plugins = None) -> None:
    """Print the JSON schema of study files, for editors."""
    from samtune.config.json_schema import study_schema
    from samtune.registry import load_plugins

    load_plugins(plugin or [], Path.cwd())
    print_json(study_schema())
