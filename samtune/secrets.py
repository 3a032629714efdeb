"""Secrets: named in a study file, taken from the environment where they are used, never written.

A study file says `token: ${HF_TOKEN}`. That text is what the study's own copy of the file,
`trial.json`, MLflow and the logs hold; only the factory of the data set or model sees the value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from samtune.errors import SamtuneError

HIDDEN = "***"
SECRET_WORDS = {
    *("auth", "credential", "credentials", "passphrase", "passwd", "password", "pwd"),
    *("secret", "secrets", "token", "apikey"),
}
KEY_WORDS = {*SECRET_WORDS, "access", "account", "api", "encryption", "private", "sas", "signing"}

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PASSWORD = re.compile(r"(://[^/?#\s:@]*:)([^/?#\s@]+)(?=@)")
_CREDENTIALS = re.compile(r"(?<=://)([^/?#\s:@]*):([^/?#\s]*)@")
_QUERY = re.compile(r"([?&;])([^=&;#\s?]+)=([^&;#\s'\"]+)")


def is_secret(name: str) -> bool:
    """Whether a parameter of this name looks like one that holds a secret: `token`, `api_key`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    words = [word for word in re.split(r"[\W_]+", spaced.lower()) if word]
    if words[-1:] == ["key"]:
        return words[-2:-1] != [] and words[-2] in KEY_WORDS
    return words[-1:] != [] and words[-1] in SECRET_WORDS


def without_password(text: str) -> str:
    """The same text with `***` for what addresses in it hold of passwords and tokens."""
    text = _CREDENTIALS.sub(rf"\1:{HIDDEN}@", text)
    return _QUERY.sub(
        lambda found: (
            f"{found[1]}{found[2]}={HIDDEN}" if is_secret(unquote(found[2])) else found[0]
        ),
        text,
    )


def said_openly(key: str, value: Any) -> str:
    """What is wrong with a secret that stands in a study file itself; empty where none does."""
    if isinstance(value, list):
        return next((problem for item in value if (problem := said_openly(key, item))), "")
    if value is None or isinstance(value, bool) or value == "":
        return ""
    text = str(value)
    name = re.sub(r"\W+", "_", key).upper()
    if is_secret(key) and not _REFERENCE.search(text):
        return (
            "holds a secret, which would be written to the study's folder and to MLflow: write "
            f"{key}: ${{{name}}} and put the secret into the environment variable {name}."
        )
    for password in _PASSWORD.finditer(text):
        if not _REFERENCE.fullmatch(password[2]):
            return (
                "holds a password, which would be written to the study's folder and to MLflow: "
                "write ${PASSWORD} in its place, and put it into the environment variable PASSWORD."
            )
    return ""


@contextmanager
def from_environment(params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The same values with `${NAME}` replaced by what that environment variable holds.

    What the body raises does not speak of them.

    Raises:
        SamtuneError: a variable is not set.
    """
    used: set[str] = set()

    def look_up(key: str, value: Any) -> Any:
        if isinstance(value, list):
            return [look_up(key, item) for item in value]
        if not isinstance(value, str):
            return value
        return _REFERENCE.sub(lambda found: held(key, found[1]), value)

    def held(key: str, name: str) -> str:
        value = os.environ.get(name)
        if not value:
            raise SamtuneError(
                f"{key} is taken from the environment variable {name}, which is not set; set it "
                "wherever trials run"
            )
        used.add(value)
        return value

    resolved = {key: look_up(key, value) for key, value in params.items()}
    try:
        yield resolved
    except Exception as error:
        said = str(error)
        if not any(value in said for value in used):
            raise
        for value in used:
            said = said.replace(value, HIDDEN)
        # Without its cause, whose own text would bring the secret back into a log.
        raise SamtuneError(f"{type(error).__name__}: {said}") from None
