"""What must reach neither MLflow nor a log."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any
from urllib.parse import unquote, urlsplit

HIDDEN = "***"
SECRET_WORDS = {
    *("auth", "credential", "credentials", "passphrase", "passwd", "password", "pwd"),
    *("secret", "secrets", "token", "apikey"),
}
KEY_WORDS = {"access", "account", "api", "encryption", "private", "sas", "signing"}
SECRET_VARIABLES = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")

_CREDENTIALS = re.compile(r"(?<=://)([^/?#\s:@]*):([^/?#\s]*)@")
_QUERY = re.compile(r"([?&;])([^=&;#\s?]+)=([^&;#\s'\"]+)")


def is_secret(name: str) -> bool:
    """Whether a parameter of this name looks like one that holds a secret: `token`, `api_key`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    words = [word for word in re.split(r"[\W_]+", spaced.lower()) if word]
    keys = (one in KEY_WORDS and two == "key" for one, two in pairwise(words))
    return any(word in SECRET_WORDS for word in words) or any(keys)


def without_password(text: str) -> str:
    """The same text with `***` for what addresses in it hold of passwords and tokens."""
    text = _CREDENTIALS.sub(rf"\1:{HIDDEN}@", text)
    return _QUERY.sub(
        lambda found: (
            f"{found[1]}{found[2]}={HIDDEN}" if is_secret(unquote(found[2])) else found[0]
        ),
        text,
    )


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
        return {key: redacted(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item, name) for item in value]
    if not isinstance(value, str):
        return value
    return HIDDEN if is_secret(name) else without_password(value)
