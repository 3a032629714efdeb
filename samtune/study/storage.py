"""Where studies are kept: a folder, as a path or as a `file://` address."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from samtune.errors import SamtuneError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def storage_path(storage: str | Path) -> Path:
    """The folder that a user means by `storage`.

    Raises:
        SamtuneError: it is an address of a kind that samtune cannot use.
    """
    text = str(storage)
    found = _SCHEME.match(text)
    if found is None:
        return Path(storage)
    scheme = found[1].lower()
    if scheme != "file":
        raise SamtuneError(
            f"storage {text}: samtune cannot keep studies at {scheme}:// addresses; name a folder, "
            "on a cluster one that every node sees"
        )
    address = urlsplit(text)
    if address.netloc not in ("", "localhost") or not address.path.startswith("/"):
        raise SamtuneError(
            f"storage {text} is no folder of this machine: write file:///path/to/studies"
        )
    return Path(unquote(address.path))
