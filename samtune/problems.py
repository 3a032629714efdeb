"""All that is wrong with a study file, in our words, each with its path and line."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from samtune.errors import StudyFileError, did_you_mean
from samtune.yaml_reader import Document, KeyPath

COMMAND_LINE = -1
"""The line of a value that came from the command line."""


class Problems:
    """Collects what is wrong, each with its path and line."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: dict[tuple[float, str], None] = {}

    def add(self, path: KeyPath, problem: str) -> None:
        """Notes a sentence about what stands at `path`."""
        line = self._line(path)
        where = ".".join(str(part) for part in path if part not in ("float", "int", "choice"))
        text = f"{where}: {problem}" if where else problem
        if line == COMMAND_LINE:
            text = f"command line, {text}"
        elif line:
            text = f"line {line}, {text}"
        self._found[(line, text)] = None

    def validate(self, cls: type[BaseModel], raw: Any, path: KeyPath) -> Any:
        """The checked object, or None with the problems noted."""
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                location = tuple(detail["loc"])
                self.add((*path, *location), _in_words(detail, cls))
            return None

    def raise_if_any(self) -> None:
        """Raises one `StudyFileError` with everything noted, in the order of the lines."""
        if self._found:
            raise StudyFileError(self._document.source, [text for _, text in sorted(self._found)])

    def __len__(self) -> int:
        return len(self._found)

    def _line(self, path: KeyPath) -> int:
        for end in range(len(path), 0, -1):
            if path[:end] in self._document.lines:
                return self._document.lines[path[:end]]
        return 0


def _in_words(detail: Any, cls: type[BaseModel]) -> str:
    kind, location = detail["type"], detail["loc"]
    if kind == "extra_forbidden":
        return no_such_setting(str(location[-1]), _fields_at(cls, location[:-1]))
    if kind == "missing":
        return "is required."
    if kind == "string_pattern_mismatch":
        return (
            f"must be 1 to 64 letters, digits, dots, dashes or underscores, got {detail['input']!r}"
        )
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    message = message[0].lower() + message[1:]
    if kind == "value_error":
        return f"{message}."
    return f"{message}, got {detail['input']!r}."


def _fields_at(cls: Any, location: KeyPath) -> list[str]:
    for part in location:
        info = cls.model_fields.get(part) if isinstance(part, str) else None
        if info is None or not isinstance(info.annotation, type):
            return []
        cls = info.annotation
    return [info.alias or name for name, info in cls.model_fields.items()]


def no_such_setting(key: str, known: Any) -> str:
    """A sentence for an unknown key, with the nearest known one."""
    suggestion = did_you_mean(key, [str(name) for name in known])
    return f"no such setting.{suggestion or ' There are: ' + ', '.join(known) + '.'}"
