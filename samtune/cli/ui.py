"""`samtune ui`: the MLflow UI on the right store."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from samtune.cli.console import new_console


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Open the MLflow UI on the store that studies write to (Ctrl-C ends it)."""
    from samtune.tracking import tracking_uri, without_password

    uri = tracking_uri()
    console = new_console()
    if uri.startswith(("http://", "https://")):
        console.print(f"Studies are recorded by the server at {without_password(uri)}: open it.")
        return
    console.print(f"MLflow UI on http://{host}:{port} for {without_password(uri)}")
    command = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port)]
    # Not on the command line, where other users of this machine could read its password.
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    raise typer.Exit(subprocess.call(command, env=environment))
