"""What must reach neither MLflow nor a log."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

from samtune.secrets import HIDDEN, is_secret, without_password

SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def masked(text: str, uris: Iterable[str] = ()) -> str:
    """The same text without these addresses' passwords, and those of MLflow's own variables."""
    secrets = {os.environ.get(name, "") for name in SECRET_VARIABLES}
    for uri in uris:
        password = urlsplit(uri).password or ""
        secrets |= {password, unquote(password)}
    for secret in sorted(secrets - {""}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return without_password(text)


def redacted(value: Any, name: str = "") -> Any:
    """The same settings with `***` for texts that look secret by their name or hold a password.

    Args:
        value: a number, text, list or mapping, nested at will.
        name: what it is called; all below a secret name is secret.
    """
    if isinstance(value, dict):
        below = name if is_secret(name) else ""
        return {key: redacted(item, below or f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item, name) for item in value]
    if not isinstance(value, str):
        return value
    return HIDDEN if is_secret(name) else without_password(value)
