"""YAML 1.2 as plain values, with the line of every key; whatever could surprise is refused.

`1e-3` is a number, `yes` a word. Duplicate keys, aliases, tags, deep nesting and large files are
mistakes in a study file, and each is named with its line. What would take seconds or hundreds of
megabytes to read is refused before it does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from samtune.errors import SamtuneError, StudyFileError, did_you_mean

MAX_BYTES = 2**20
MAX_LINES = 10_000
MAX_VALUES = 5_000  # the parser takes a tenth of a millisecond and a kilobyte for each
MAX_DEPTH = 20
SUFFIXES = (".yaml", ".yml")
MAX_DIGITS = 100
NO_TEXT = re.compile("[\0\ud800-\udfff]")  # neither file names nor UTF-8 can hold them
MAX_INTEGER = 2**53  # beyond it JSON, Optuna and MLflow would round

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A parsed file.

    Attributes:
        value: mappings, lists, strings, numbers, booleans and None.
        lines: for the path of each key and list item, the line it stands on, from 1.
    """

    source: str
    value: Any
    lines: dict[KeyPath, int]


def read_yaml(path: Path) -> Document:
    """Reads a file.

    Raises:
        SamtuneError: it cannot be read as text.
        StudyFileError: it is no YAML, or YAML that is refused.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)  # a pipe may go on for ever
    except IsADirectoryError:
        raise SamtuneError(f"{path} is a folder, not a study file") from None
    except FileNotFoundError as error:
        raise SamtuneError(f"{path} cannot be read: {error.strerror}.{_near(path)}") from None
    except OSError as error:
        raise SamtuneError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise SamtuneError(f"{path} is larger than 1 MiB; a study file is a few hundred bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SamtuneError(f"{path} is not UTF-8 text (line {line})") from None
    return parse_yaml(text, str(path))


def _near(path: Path) -> str:
    """A suggestion for a file that is not there, from the folder that should hold it."""
    try:
        names = [other.name for other in path.parent.iterdir() if other.suffix in SUFFIXES]
    except OSError:
        return f" There is no folder {path.parent} either." if path.parent != Path() else ""
    return did_you_mean(path.name, sorted(names)) or " Is this the right folder?"


def parse_yaml(text: str, source: str) -> Document:
    """Parses text; `source` names it in messages."""
    if text.count("\n") > MAX_LINES:
        raise StudyFileError(
            source, [f"line {MAX_LINES}: a study file has some dozen lines, and no more than that"]
        )
    try:
        _refuse_surprises(text, source)
        node = YAML(typ="safe", pure=True).compose(text)
    except YAMLError as error:
        raise StudyFileError(source, [_explain(error)]) from None
    lines: dict[KeyPath, int] = {(): 1}
    problems: list[str] = []
    value = None if node is None else _construct(node, (), lines, problems)
    if problems:
        raise StudyFileError(source, problems)
    return Document(source, value, lines)


def parse_value(text: str, source: str) -> Any:
    """One value as on a command line: `0.1`, `[1, 2]`, `{float: [0.1, 1]}`."""
    return parse_yaml(text, source).value


def _events(text: str, source: str) -> Iterator[Any]:
    line = 1
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            line = event.start_mark.line + 1
            yield event
    except (ValueError, OverflowError):  # ruamel's own, of an escape such as \UFFFFFFFF
        raise StudyFileError(
            source, [f"line {line} or below: a backslash escape names no character; use '...'"]
        ) from None


def _refuse_surprises(text: str, source: str) -> None:
    depth = 0
    for count, event in enumerate(_events(text, source)):
        line = event.start_mark.line + 1
        if count > MAX_VALUES:
            raise StudyFileError(
                source,
                [f"line {line}: more than {MAX_VALUES} values; a study file has some dozen"],
            )
        if isinstance(event, AliasEvent):
            raise StudyFileError(
                source, [f"line {line}: aliases (*{event.anchor}) are refused; write it out"]
            )
        if tag := isinstance(event, NodeEvent) and getattr(event, "tag", None):
            raise StudyFileError(
                source, [f"line {line}: tags ({tag}) are refused; write the value without it"]
            )
        if isinstance(event, ScalarEvent) and NO_TEXT.search(event.value):
            raise StudyFileError(
                source, [f"line {line}: a null or half a character is no text; take it out"]
            )
        if isinstance(event, CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise StudyFileError(
                    source, [f"line {line}: nested deeper than {MAX_DEPTH}; write it flatter"]
                )
        elif isinstance(event, CollectionEndEvent):
            depth -= 1


def _construct(node: Node, path: KeyPath, lines: dict[KeyPath, int], problems: list[str]) -> Any:
    if not path or path not in lines:  # a key's own line stays
        lines[path] = node.start_mark.line + 1
    if isinstance(node, SequenceNode):
        return [_construct(item, (*path, i), lines, problems) for i, item in enumerate(node.value)]
    if not isinstance(node, MappingNode):
        try:
            return _scalar(node)
        except ValueError as error:
            where = ".".join(str(part) for part in path)
            place = f"line {node.start_mark.line + 1}"
            problems.append(f"{place}, {where}: {error}." if where else f"{place}: {error}.")
            return None
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode):
            problems.append(f"line {line}: a key is a word, not a list or a mapping.")
            continue
        key = str(key_node.value)
        if key in mapping:
            first = lines[(*path, key)]
            where = ".".join(str(p) for p in (*path, key))
            problems.append(f"line {line}, {where}: given twice, first on line {first}; keep one.")
            continue
        lines[(*path, key)] = line
        mapping[key] = _construct(value_node, (*path, key), lines, problems)
    return mapping


def _scalar(node: Node) -> Any:
    yaml = YAML(typ="safe", pure=True)
    constructor = yaml.constructor
    assert isinstance(constructor, SafeConstructor)
    if str(node.tag).endswith((":timestamp", ":value", ":merge")):
        return node.value  # a date, `=` and `<<` mean nothing here; they can be quoted back
    if len(node.value) > MAX_DIGITS and str(node.tag).endswith((":int", ":float")):
        raise ValueError(f"a number of {len(node.value)} characters; write it shorter")
    value = constructor.construct_object(node)
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise ValueError(f"integers go up to {MAX_INTEGER}, got {value}")
    return value


def _explain(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark else ""
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    problem = problem.partition(' in "<unicode string>"')[0]
    if "another document" in problem:
        problem = "a second document begins here; keep one, and take the '---' out"
    if "'\\t'" in problem:
        problem = "tabs cannot indent YAML; use spaces"
    return f"{where}{problem}"
