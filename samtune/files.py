"""Files that are whole or absent, whatever is killed in the middle of writing them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from samtune import working_copy
from samtune.errors import DamagedFileError

T = TypeVar("T")

TEMPORARY = ".tmp-"  # what the names of half-written files begin with

_adapter: Callable[[Any], TypeAdapter[Any]] = functools.cache(TypeAdapter)


def write_atomically(
    path: Path, content: bytes, may_replace: Callable[[], None] | None = None
) -> None:
    """Replaces `path` by `content` in one step: readers and crashes see the old or the new.

    The content is on the disk when this returns; `sync_folder` makes the name so too.

    Args:
        may_replace: is called once the content lies in a temporary file, and raises where `path`
            must stay as it is. Who then takes the folder over and removes temporary files can be
            sure that nothing asked for before is renamed any more.

    Where the path stands for an object in a bucket (`working_copy`), that is put first.

    Raises:
        OSError: it cannot be written; its `filename` is `path`, which is as it was.
    """
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        with naming(path), open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if may_replace:
            may_replace()
        working_copy.put(path, content)
        with naming(path):
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Says in an `OSError` what was to be written: a full disk alone says only that it is full."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def remove(path: Path) -> None:
    """Removes a file, there or not."""
    working_copy.delete(path)
    path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Copies a damaged file to a name beside it that nothing reads, and returns that name."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    write_atomically(aside, path.read_bytes())
    return aside


def sha256_of(path: Path) -> str:
    """A file's digest; empty where there is no such file to read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def sync_folder(folder: Path) -> None:
    """Makes renames and new names in this folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with naming(folder):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any, may_replace: Callable[[], None] | None = None) -> None:
    """Replaces `path` by readable JSON, as `write_atomically` does."""
    content = (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
    write_atomically(path, content, may_replace)


def read_json(path: Path, shape: type[T]) -> T | None:
    """What `write_json` wrote, as a `shape`, or None if there is no such file.

    Raises:
        DamagedFileError: somebody else has changed it; `write_json` leaves no half-written file.
    """
    try:
        return parse_json(path.read_bytes(), shape)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DamagedFileError(path, str(error)) from error


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
