"""Files that say again what others say, so that nobody has to find it out twice.

One that is stale, damaged, of another study or gone changes nothing but how long reading takes. The
first line says what it was made of and the checksum of the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import samtune
from samtune.files import TEMPORARY, parse_json


@dataclass(frozen=True)
class _About:
    """The first line.

    Attributes:
        source: what it was made of.
        sha256: of all that follows.
    """

    samtune: str
    source: str
    sha256: str

    @classmethod
    def of(cls, source: str, content: bytes) -> _About:
        return cls(samtune.__version__, source, hashlib.sha256(content).hexdigest())


def read_derived(path: Path, source: str) -> bytes | None:
    """What was made of this source by this samtune; None if the file does not have it whole."""
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        about, content = file.readline(), file.read()
        if parse_json(about, _About) == _About.of(source, content):
            return content
    return None


def write_derived(path: Path, source: str, content: bytes) -> None:
    """Replaces the file; who may not write, or has no room to, does without."""
    # Without waiting for the disk: a file that a power cut leaves torn is none.
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    about = json.dumps(asdict(_About.of(source, content))).encode()
    with contextlib.suppress(OSError):
        try:
            temporary.write_bytes(about + b"\n" + content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
