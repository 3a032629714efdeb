"""Where MLflow keeps its records, and what its client is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from samtune.errors import SamtuneError

if TYPE_CHECKING:
    pass


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the store that a plain `mlflow ui` in this folder opens.

    Raises:
        SamtuneError: that variable holds no address.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').absolute()}"
    try:
        urlsplit(uri)
    except ValueError as error:
        raise SamtuneError(f"MLFLOW_TRACKING_URI is no address: {error}") from None
    return uri


def without_password(uri: str) -> str:
    """The same address, fit for a screen or a log."""
    parts = urlsplit(uri)
    if not parts.password:
        return uri
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}"))


def masked(text: str, uri: str) -> str:
    """The text without the password that the address holds."""
    password = urlsplit(uri).password
    return text.replace(password, "***") if password else text


# A dead server would otherwise hold a call for four minutes.
CLIENT_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
