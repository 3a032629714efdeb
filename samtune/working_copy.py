"""Folders whose truth is in a bucket: each process has a copy of its own of what it needs of them.

A path below this process's copies stands for an object. Code that writes through `samtune.files`
writes both, the object first; code that must not be behind asks for `current(path)`. Paths
elsewhere are files and nothing else, and every function here leaves them alone.

A copy is a cache: it begins empty, is removed with its process, and nothing is ever read in it that
the bucket did not have. A put replaces what this process has last seen there and nothing newer
(`samtune.s3`), so who was held up, or looks at an old listing, changes nothing.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock, Timeout

from samtune import s3
from samtune.errors import SamtuneError
from samtune.s3 import Bucket, ChangedError, Listed

__all__ = ["ChangedError"]

PREFIX = "samtune-copy-"
HELD = ".held"
_ADDRESS = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[^/\x00-\x1f]+)*)/?")

_roots: dict[Path, FileLock] = {}  # of this process's copies: one, made when the first is
_tags: dict[Path, str] = {}  # of the objects whose content the copy has
_listed: dict[Path, dict[str, Listed]] = defaultdict(dict)  # by folder: every object known there


def local_path(address: str) -> Path:
    """Where this process keeps its copy of an `s3://` address.

    Raises:
        SamtuneError: it is no address of a bucket or a folder in one, or boto3 is missing.
    """
    found = _ADDRESS.fullmatch(address)
    parts = [part for part in found[2].split("/") if part] if found else [".."]
    if found is None or {".", ".."} & {*parts}:
        raise SamtuneError(f"storage {address}: write s3://BUCKET or s3://BUCKET/FOLDER")
    s3.check_installed()
    root = next(reversed(_roots), None) or new_copies()
    return root.joinpath(found[1], *parts)


def new_copies() -> Path:
    """A folder for copies from now on, gone with this process; those made before stay theirs.

    The lock in it says that it is in use.
    """
    _sweep()
    root = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    held = FileLock(root / f"{HELD}-new")
    held.acquire()
    os.rename(held.lock_file, root / HELD)  # nobody ever sees it free
    _roots[root] = held
    atexit.register(_remove, root)
    return root


def is_copy(path: Path) -> bool:
    """Whether a path stands for an object, or for a folder of objects."""
    return any(path.is_relative_to(root) for root in _roots)


def address(path: Path) -> str:
    """What a path is called elsewhere: by people, and by processes with copies of their own."""
    if not is_copy(path):
        return str(path)
    return f"s3://{'/'.join(_parts(path))}"


def current(path: Path) -> Path:
    """The path, once it has what the bucket has now, or is absent as it is there.

    Raises:
        OSError: the bucket cannot be asked.
    """
    if not is_copy(path):
        return path
    known = _tags.get(path, "")
    found = _bucket(path).get(_key(path), unless=known)
    if found is None:
        _forget(path)
    elif found.tag != known:
        _keep(path, found.content, found.tag)
    return path


def at_hand(path: Path) -> Path:
    """The path, once its object was fetched, if there is one: what is never put twice, or a log."""
    if is_copy(path) and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        current(path)
    return path


def put(path: Path, content: bytes) -> None:
    """Puts a path's object, where it stands for one; its copy is still the caller's to write.

    Raises:
        ChangedError: the object is not what this process has last seen; the copy now has it.
        OSError: it could not be put.
    """
    if not is_copy(path):
        return
    listed = _listed[path.parent].get(path.name)
    replaces = _tags.get(path) or (listed.tag if listed else "")
    try:
        tag = _bucket(path).put(_key(path), content, replaces)
    except ChangedError:
        current(path)
        raise
    _note(path, tag, len(content))


def honours_conditions(path: Path) -> bool:
    """Whether the bucket refuses to put what its conditions forbid, tried on an object it has."""
    for replaces in ("", '"0"'):
        try:
            _bucket(path).put(_key(path), b"", replaces)
        except ChangedError:
            continue
        return False
    return True


def publish(path: Path) -> None:
    """Puts a file as it is in the copy: a log, which grows by other means."""
    if is_copy(path) and path.exists():
        put(path, path.read_bytes())


def delete(path: Path) -> None:
    """Removes a path's object, where it stands for one; its copy is the caller's to remove."""
    if is_copy(path):
        _bucket(path).delete(_key(path))
        _tags.pop(path, None)
        _listed[path.parent].pop(path.name, None)


def delete_folder(folder: Path) -> None:
    """Removes all objects of a folder, and with them the copy."""
    if is_copy(folder):
        listed = _bucket(folder).listed(_key(folder) + "/")
        _in_parallel(delete, [folder / key.removeprefix(_key(folder) + "/") for key in listed])


def age_s(path: Path) -> float | None:
    """How long ago a path's object was put, by the store's clock; None if there is none."""
    return _bucket(path).age_s(_key(path))


def names(folder: Path) -> set[str]:
    """The names in a folder, of objects that were not fetched, too."""
    here = os.listdir(folder) if folder.is_dir() else []
    return {*here, *_listed.get(folder, ())}


def size_of(folder: Path) -> int:
    """The bytes of all objects in a folder."""
    return sum(item.size for item in _bucket(folder).listed(f"{_key(folder)}/").values())


def file_size(path: Path) -> int:
    """The bytes of a file, fetched or not."""
    listed = _listed[path.parent].get(path.name) if is_copy(path) else None
    return listed.size if listed else path.stat().st_size


def subfolders(folder: Path) -> list[str]:
    """The names of the folders in a folder of objects."""
    key = _key(folder)
    return _bucket(folder).folders(f"{key}/" if key else "")


def fetch(folder: Path, wanted: Callable[[str], bool], surely: Iterable[str] = ()) -> None:
    """Brings a folder's copy to where the bucket is.

    Args:
        wanted: by its path in the folder, whether an object is fetched or only its name.
        surely: names that are asked for even where the listing lacks them.

    Raises:
        OSError: the bucket cannot be asked.
    """
    key = _key(folder)
    listed = _bucket(folder).listed(f"{key}/")
    there = {folder / name.removeprefix(f"{key}/"): found for name, found in listed.items()}
    for path, found in there.items():
        _listed[path.parent][path.name] = found
    changed = {path for path, found in there.items() if _tags.get(path) != found.tag}
    due = {path for path in changed if wanted(path.relative_to(folder).as_posix())}
    # What a listing lacks may be gone, or too new for it.
    due |= {path for path in _tags if path not in there and path.is_relative_to(folder)}
    due |= {folder / name for name in surely}
    refresh(due)


def refresh(paths: Iterable[Path]) -> None:
    """`current` of many at once."""
    _in_parallel(current, paths)


def _in_parallel(act: Callable[[Path], object], paths: Iterable[Path]) -> None:
    paths = sorted(paths)
    if len(paths) < 2:
        for path in paths:
            act(path)
        return
    with ThreadPoolExecutor(min(s3.CONNECTIONS, len(paths))) as pool:
        for _ in pool.map(act, paths):
            pass


def _keep(path: Path, content: bytes, tag: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    temporary.write_bytes(content)
    os.replace(temporary, path)
    _note(path, tag, len(content))


def _note(path: Path, tag: str, size: int) -> None:
    _tags[path] = tag
    _listed[path.parent][path.name] = Listed(tag, size)


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)
    _tags.pop(path, None)
    _listed[path.parent].pop(path.name, None)


def _parts(path: Path) -> tuple[str, ...]:
    return next(path.relative_to(root).parts for root in _roots if path.is_relative_to(root))


def _bucket(path: Path) -> Bucket:
    return Bucket(_parts(path)[0])


def _key(path: Path) -> str:
    return "/".join(_parts(path)[1:])


def _remove(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    _sweep()


def _sweep() -> None:
    """Removes the copies of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if folder.stat().st_uid != os.getuid() or not (folder / HELD).exists():
                continue
            with FileLock(folder / HELD, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except (OSError, Timeout):
            continue
