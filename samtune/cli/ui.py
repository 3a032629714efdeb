"""`samtune ui`: the MLflow UI on the right store."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from samtune.cli.console import new_console
from samtune.errors import SamtuneError


def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Open the MLflow UI on the store that studies write to (Ctrl-C ends it)."""
    from samtune.tracking import tracking_uri, without_password
    from samtune.tracking.store import CLIENT_ENVIRONMENT

    uri = tracking_uri()
    console = new_console()
    if uri.startswith(("http://", "https://")):
        console.print(f"Studies are recorded by the server at {without_password(uri)}: open it.")
        return
    _check_store(uri)
    _check_port(host, port)
    console.print(f"MLflow UI on http://{host}:{port} for {without_password(uri)}")
    # Not in the arguments: every user of the machine can read those, and a password may be in it.
    environment = {**os.environ, **CLIENT_ENVIRONMENT, "MLFLOW_BACKEND_STORE_URI": uri}
    command = [sys.executable, "-m", "mlflow", "ui", "--host", host, "--port", str(port)]
    raise typer.Exit(subprocess.call(command, env=environment))


def _check_store(uri: str) -> None:
    """MLflow would make an empty database of a file that is not there."""
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        raise SamtuneError(
            f"there is no {path}: no study was run from this folder yet. Go to the folder where "
            "studies were run, or name their store with MLFLOW_TRACKING_URI."
        )


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise SamtuneError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; take another with --port"
        ) from None
