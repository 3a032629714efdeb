"""YAML 1.2 as plain values, with the line of every key; whatever could surprise is refused.

`1e-3` is a number, `yes` a word. Duplicate keys, aliases, tags, deep nesting and large files are
mistakes in a study file, and each is named with its line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from samtune.errors import SamtuneError, StudyFileError

MAX_BYTES = 2**20
MAX_DEPTH = 20

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
        if path.stat().st_size > MAX_BYTES:
            raise SamtuneError(f"{path} is larger than 1 MiB; a study file is a few hundred bytes")
        content = path.read_bytes()
    except IsADirectoryError:
        raise SamtuneError(f"{path} is a folder, not a study file") from None
    except OSError as error:
        raise SamtuneError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SamtuneError(f"{path} is not UTF-8 text (line {line})") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Document:
    """Parses text; `source` names it in messages."""
    try:
        _refuse_surprises(text, source)
        node = YAML(typ="safe", pure=True).compose(text)
    except YAMLError as error:
        raise StudyFileError(source, [_explain(error)]) from None
    lines: dict[KeyPath, int] = {}
    problems: list[str] = []
    value = None if node is None else _construct(node, (), lines, problems)
    if problems:
        raise StudyFileError(source, problems)
    return Document(source, value, lines)


def parse_value(text: str, source: str) -> Any:
    """One value as on a command line: `0.1`, `[1, 2]`, `{float: [0.1, 1]}`."""
    return parse_yaml(text, source).value


def _events(text: str) -> Iterator[Any]:
    yield from YAML(typ="safe", pure=True).parse(text)


def _refuse_surprises(text: str, source: str) -> None:
    depth = 0
    for event in _events(text):
        line = event.start_mark.line + 1
        if isinstance(event, AliasEvent):
            raise StudyFileError(source, [f"line {line}: aliases (*{event.anchor}) are refused"])
        if tag := isinstance(event, NodeEvent) and getattr(event, "tag", None):
            raise StudyFileError(source, [f"line {line}: tags ({tag}) are refused"])
        if isinstance(event, CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise StudyFileError(source, [f"line {line}: nested deeper than {MAX_DEPTH}"])
        elif isinstance(event, CollectionEndEvent):
            depth -= 1


def _construct(node: Node, path: KeyPath, lines: dict[KeyPath, int], problems: list[str]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, SequenceNode):
        return [_construct(item, (*path, i), lines, problems) for i, item in enumerate(node.value)]
    if not isinstance(node, MappingNode):
        return _scalar(node)
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value)
        line = key_node.start_mark.line + 1
        if key in mapping:
            first = lines[(*path, key)]
            where = ".".join(str(p) for p in (*path, key))
            problems.append(f"line {line}, {where}: given twice, first on line {first}.")
            continue
        lines[(*path, key)] = line
        mapping[key] = _construct(value_node, (*path, key), lines, problems)
    return mapping


def _scalar(node: Node) -> Any:
    yaml = YAML(typ="safe", pure=True)
    constructor = yaml.constructor
    assert isinstance(constructor, SafeConstructor)
    if str(node.tag).endswith(":timestamp"):
        return node.value  # a date means nothing here; the text can at least be quoted back
    return constructor.construct_object(node)


def _explain(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark else ""
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    if "'\\t'" in problem:
        problem = "tabs cannot indent YAML; use spaces"
    return f"{where}{problem}"
