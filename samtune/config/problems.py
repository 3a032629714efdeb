"""All that is wrong with a study file, in our words, each with its path and line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from samtune.config.yaml_reader import Document, KeyPath
from samtune.errors import StudyFileError, did_you_mean
from samtune.secrets import HIDDEN, is_secret, without_password

OUR_OWN = ("float", "int", "choice")  # parts of a path that the schema has and the file has not
LONGEST_SHOWN = 80
MUST_BE = {  # where pydantic names a Python type
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_short": "a list with a value in it",
    "string_type": "text",
    "path_type": "a path",
}
COMMAND_LINE = -1
"""The line of a value that came from the command line."""


class Problems:
    """Collects what is wrong, each with its path and line."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: dict[tuple[float, str], None] = {}
        self._paths: set[KeyPath] = set()

    def add(self, path: KeyPath, problem: str) -> None:
        """Notes a sentence about what stands at `path`."""
        line = self._line(path)
        where = ".".join(str(part) for part in path if part not in OUR_OWN)
        text = f"{where}: {problem}" if where else problem
        if line == COMMAND_LINE:
            text = f"command line, {text}"
        elif line:
            text = f"line {line}{', ' if where else ': '}{text}"
        self._found[(line, text)] = None
        self._paths |= {path[:end] for end in range(len(path) + 1)}

    def validate(self, cls: type[BaseModel], raw: Any, path: KeyPath) -> Any:
        """The checked object, or None with the problems noted."""
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                location = tuple(detail["loc"])
                if detail["type"] == "missing" and isinstance(location[-1], int):
                    location = location[:-1]  # a list that is too short has the mistake
                self.add((*path, *location), _in_words(detail, cls))
            return None

    @property
    def sentences(self) -> list[str]:
        """Everything noted, in the order of the lines."""
        return [text for _, text in sorted(self._found)]

    def raise_if_any(self) -> None:
        """Raises one `StudyFileError` with everything noted."""
        if self._found:
            raise StudyFileError(self._document.source, self.sentences)

    def __len__(self) -> int:
        return len(self._found)

    def any_at(self, path: KeyPath) -> bool:
        """Whether something was noted at `path` or below it."""
        return path in self._paths

    def is_overridden(self, path: KeyPath) -> bool:
        """Whether the value at `path` came from the command line."""
        return self._line(path) == COMMAND_LINE

    def _line(self, path: KeyPath) -> int:
        for end in range(len(path), -1, -1):
            if path[:end] in self._document.lines:
                return self._document.lines[path[:end]]
        return 0


def _in_words(detail: Any, cls: type[BaseModel]) -> str:
    kind, location = detail["type"], detail["loc"]
    found = HIDDEN if location and is_secret(str(location[-1])) else shown(detail["input"])
    if kind == "extra_forbidden":
        return no_such_setting(str(location[-1]), _fields_at(cls, location[:-1]))
    if kind == "missing":
        short = isinstance(location[-1], int)
        return f"needs more values, got {found}." if short else "is required, got nothing."
    if kind == "string_type" and isinstance(detail["input"], int | float):
        return f"must be text, got {found}: put it into quotes."
    if kind == "string_pattern_mismatch":
        return f"must be 1 to 64 letters, digits, dots, dashes or underscores, got {found}."
    if must_be := MUST_BE.get(kind):
        return f"must be {must_be}, got {found}."
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = message[0].lower() + message[1:]
    if kind == "value_error":
        return f"{message}."
    return f"{message}, got {found}."


def shown(value: Any) -> str:
    """A value as YAML says it, cut where it is long, and without passwords."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    text = without_password(text)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _fields_at(cls: Any, location: KeyPath) -> list[str]:
    for part in location:
        info = cls.model_fields.get(part) if isinstance(part, str) else None
        if info is None or not isinstance(info.annotation, type):
            return []
        cls = info.annotation
    return [info.alias or name for name, info in cls.model_fields.items()]


def no_such_setting(key: str, known: Iterable[str], elsewhere: Iterable[str] = ()) -> str:
    """A sentence for an unknown key, with the nearest known one.

    Args:
        elsewhere: what may have been meant, but stands in another place.
    """
    suggestion = did_you_mean(key, [*known, *elsewhere])
    return f"no such setting.{suggestion or ' There are: ' + ', '.join(known) + '.'}"
