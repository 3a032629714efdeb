"""Where studies are kept: a folder, as a path or as an address, or a folder of a bucket."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from samtune.errors import SamtuneError
from samtune.working_copy import local_path

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def storage_path(storage: str | Path) -> Path:
    """The folder that a user means by `storage`; of one in a bucket, this process's copy.

    Raises:
        SamtuneError: it is an address of a kind that samtune cannot use.
    """
    text = str(storage)
    found = _SCHEME.match(text)
    if found is None:
        return Path(storage)
    scheme = found[1].lower()
    if scheme == "s3" and isinstance(storage, str):
        return local_path(text)
    if scheme == "s3":
        raise SamtuneError(f"storage {text}: give an address as a string, not as a path")
    if scheme != "file":
        raise SamtuneError(
            f"storage {text}: samtune cannot keep studies at {scheme}:// addresses; name a folder, "
            "on a cluster one that every node sees, or s3://BUCKET/FOLDER"
        )
    address = urlsplit(text)
    if address.netloc not in ("", "localhost") or not address.path.startswith("/"):
        raise SamtuneError(
            f"storage {text} is no folder of this machine: write file:///path/to/studies"
        )
    return Path(unquote(address.path))
