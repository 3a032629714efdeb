"""Files that are whole or absent, whatever is killed in the middle of writing them."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from samtune.errors import SamtuneError


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


def read_json(path: Path) -> Any:
    """What `write_json` wrote, or None if there is no such file.

    Raises:
        SamtuneError: somebody else has changed it; `write_json` leaves no half-written file.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise SamtuneError(f"{path} is damaged ({error}); restore it from a backup") from error
