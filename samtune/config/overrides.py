"""`KEY=VALUE` from the command line, laid over what a study file says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from samtune.config.problems import COMMAND_LINE, shown
from samtune.config.trial import TrialConfig
from samtune.config.yaml_reader import Document, parse_value
from samtune.errors import SamtuneError

NULL = ("null", "Null", "NULL", "~")


def with_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """The document as it is with every override laid over it; `KEY=null` takes a key out.

    Raises:
        SamtuneError: an override is none, or does not fit the document.
    """
    if not overrides or not isinstance(document.value, dict):
        return document
    raw = json.loads(json.dumps(document.value))
    lines = dict(document.lines)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not all(key.split(".")):
            raise SamtuneError(
                f"{override!r} is no override: write KEY=VALUE, as in study.trials=8"
            )
        value = parse_value(text, f"the value of {key}")
        if value is None and text.strip() not in NULL:
            raise SamtuneError(
                f"{override!r} has no value: write {key}=VALUE, or {key}=null to take it out"
            )
        path = _override_path(key)
        target = raw
        for end, part in enumerate(path[:-1], 1):
            if target.get(part) is None:
                target[part] = {}
            if not isinstance(target[part], dict):
                place = ".".join(path[:end])
                raise SamtuneError(
                    f"{override!r} does not fit {document.source}, where {place} is "
                    f"{shown(target[part])}: override the whole of it, as in '{place}={{...}}'"
                )
            target = target[part]
        if value is None and path[-1] in target:
            del target[path[-1]]
        else:
            target[path[-1]] = value  # an unknown one is found later, null or not
        for known in [p for p in lines if p[: len(path)] == path]:
            del lines[known]
        lines[path] = COMMAND_LINE
    return Document(document.source, raw, lines)


def refuse_searched(document: Document, overrides: Sequence[str]) -> None:
    """Holds overrides against the search space of the document that they were laid over.

    Trials draw a searched setting, so that a value for it would change nothing but the baseline.
    One that is searched under a condition only keeps its base value elsewhere, and may be given.

    Raises:
        SamtuneError: an override is of a setting that every trial draws.
    """
    space = document.value.get("search_space") if isinstance(document.value, dict) else None
    if not isinstance(space, dict):
        return
    for override in overrides:
        key, _, text = override.partition("=")
        path = _override_path(key)
        if path[0] != "trial":
            continue
        given = [".".join(path[1:])]
        value = parse_value(text, f"the value of {key}")
        if isinstance(value, dict):
            given += [f"{given[0]}.{name}" for name in value]
        for searched in given:
            if searched in space and not _is_conditional(space[searched]):
                raise SamtuneError(
                    f"{override!r} would change no trial: the search space draws {searched}. "
                    f"Take it out of there with search_space.{searched}=null, or give it another "
                    f"range with 'search_space.{searched}={{...}}'"
                )


def _is_conditional(entry: Any) -> bool:
    entries = entry if isinstance(entry, list) else [entry]
    return all(isinstance(item, dict) and "when" in item for item in entries)


def _override_path(key: str) -> tuple[str, ...]:
    first, _, rest = key.partition(".")
    if first == "search_space" and rest:
        return ("search_space", rest)
    parts = tuple(key.split("."))
    return ("trial", *parts) if first in TrialConfig.model_fields else parts
