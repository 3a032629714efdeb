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
from samtune.cli.options import Storage
from samtune.errors import SamtuneError
from samtune.study import DEFAULT_STORAGE, open_study

USUAL_PORT = 5000


def ui(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="Open a study's own store, with links to its pages.",
            show_default=False,
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="Port on this machine; default is 5000, or a free one.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Open the MLflow UI on the store that studies write to (Ctrl-C ends it)."""
    from samtune.tracking import Store, pages_of, store_of, tracking_uri
    from samtune.tracking.store import CLIENT_ENVIRONMENT

    study = open_study(name, storage) if name is not None else None
    store = store_of(study.folder.root) if study else Store(tracking_uri())
    console = new_console()
    is_server = store.uri.startswith(("http://", "https://"))
    if not is_server:
        _check_store(store.uri)
        port = _usable_port(host, port)
    base = store.address.rstrip("/") if is_server else f"http://{host}:{port}"
    if is_server:
        console.print(f"Studies are recorded by the server at {store.address}: open it.")
    else:
        console.print(f"MLflow UI on {base} for {store.address}", soft_wrap=True)
    if study:
        pages = pages_of(study, store)
        for name in ("charts", "trials", "compare", "study"):
            if page := getattr(pages, name):
                console.print(f"  {name:10} {base}{page}", markup=False, soft_wrap=True)
    if is_server:
        return
    # Not in the arguments: every user of the machine can read those, and a password may be in it.
    environment = {**os.environ, **CLIENT_ENVIRONMENT, "MLFLOW_BACKEND_STORE_URI": store.uri}
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


def _usable_port(host: str, wanted: int | None) -> int:
    """The wanted port; where none is, the usual one or, while that is taken, a free one."""
    tries = (wanted,) if wanted is not None else (USUAL_PORT, 0)
    for port in tries:
        try:
            with socket.create_server((host, port)) as server:
                return int(server.getsockname()[1])
        except OSError as error:
            if port == tries[-1]:
                raise SamtuneError(
                    f"cannot listen on {host}:{port}: {error.strerror or error}; take another "
                    "with --port"
                ) from None
    raise AssertionError(tries)
