"""Files that are whole or absent, whatever is killed in the middle of writing them."""

from __future__ import annotations

import functools
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from samtune.errors import SamtuneError

T = TypeVar("T")

_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` by `content` in one step: readers and crashes see the old or the new.

    The content is on the disk when this returns; `sync_folder` makes the name so too.
    """
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Makes renames and new names in this folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Replaces `path` atomically by readable JSON."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path, shape: type[T]) -> T | None:
    """What `write_json` wrote, as a `shape`, or None if there is no such file.

    Raises:
        SamtuneError: somebody else has changed it; `write_json` leaves no half-written file.
    """
    try:
        return parse_json(path.read_bytes(), shape)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise SamtuneError(f"{path} is damaged ({error}); restore it from a backup") from error


def parse_json(content: bytes, shape: type[T]) -> T:
    """JSON as a dataclass, a pydantic model or a plain type; its types are taken at their word.

    Raises:
        ValueError: it is no JSON, or another shape; the message is one line.
    """
    try:
        parsed: T = _adapter(shape).validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from error
    return parsed
