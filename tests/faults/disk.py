"""Something happens at the n-th thing a process does to its disk."""

from __future__ import annotations

import builtins
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from tests.faults.saboteur import Killed

OPERATIONS = ("write", "fsync", "replace", "rename", "unlink", "ftruncate")


class Disk:
    """Counts what is done to the disk, and calls `deed` once before the `at`-th operation.

    Attributes:
        done: the operations so far, those of the deed itself not counted.
    """

    def __init__(self, at: int, deed: Callable[[Disk], None]) -> None:
        self.at = at
        self.deed = deed
        self.done: list[str] = []
        self.is_dead = False
        self.fails_with: int | None = None
        self._originals = {name: getattr(os, name) for name in OPERATIONS}
        self._originals["open"] = open
        self._in_deed = False

    @contextmanager
    def watched(self) -> Iterator[Disk]:
        """While the body runs, the disk is watched."""
        patches = [patch.object(os, name, self._operation(name)) for name in OPERATIONS]
        patches.append(patch.object(builtins, "open", self._operation("open")))
        for each in patches:
            each.start()
        try:
            yield self
        finally:
            for each in patches:
                each.stop()

    def _operation(self, name: str) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            original = self._originals[name]
            only_reads = name == "open" and not {*"wa+"} & {*"".join(map(str, args[1:2]))}
            if self._in_deed or only_reads:
                return original(*args, **kwargs)
            if self.is_dead:
                raise Killed
            self.done.append(name)
            if len(self.done) == self.at:
                if self.deed is fill and name == "write":
                    self.deed(self)
                    return original(args[0], _half(args[1]))  # as a disk with some bytes left
                if self.deed is kill:
                    self._tear(name, args)
                self._in_deed = True
                try:
                    self.deed(self)
                finally:
                    self._in_deed = False
            if self.fails_with and name in ("write", "fsync", "replace"):
                raise OSError(self.fails_with, os.strerror(self.fails_with))
            return original(*args, **kwargs)

        return operation

    def _tear(self, name: str, args: tuple[Any, ...]) -> None:
        """Half of what is being written is all that a kill leaves."""
        if name == "write":
            self._originals["write"](args[0], _half(args[1]))
        elif name == "fsync" and "/.tmp-" in os.readlink(f"/proc/self/fd/{args[0]}"):
            self._originals["ftruncate"](args[0], os.fstat(args[0]).st_size // 2)


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def kill(disk: Disk) -> None:
    """SIGKILL: nothing of the process runs after it."""
    disk.is_dead = True
    raise Killed


def fill(disk: Disk) -> None:
    """From here on there is no space."""
    disk.fails_with = errno.ENOSPC


def go_read_only(disk: Disk) -> None:
    """From here on nothing can be written, not even in part."""
    disk.fails_with = errno.EROFS


def wear_out(disk: Disk) -> None:
    """From here on the disk reports errors."""
    disk.fails_with = errno.EIO
