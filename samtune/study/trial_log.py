"""What a trial prints goes to its log, and no log grows without end."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

MOST_BYTES = 16 * 2**20
HEAD_BYTES, TAIL_BYTES = MOST_BYTES // 2, MOST_BYTES // 4
LOOK_EVERY_S = 0.2


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Sends everything this process prints, from C++ as well, to the end of `log`.

    A log that outgrows `MOST_BYTES` keeps its beginning, where a mistake shows first, and its end.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    done = threading.Event()
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    cutter = threading.Thread(target=_cut_until, args=(done, 1), daemon=True)
    cutter.start()
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        done.set()
        cutter.join()
        for original, number in zip(saved, (1, 2), strict=True):
            os.dup2(original, number)
            os.close(original)


def _cut_until(done: threading.Event, descriptor: int) -> None:
    while not done.wait(LOOK_EVERY_S):
        _cut(descriptor)
    _cut(descriptor)


def _cut(descriptor: int) -> None:
    """Takes the middle out of a file that is too long; whoever appends to it notices nothing."""
    size = os.fstat(descriptor).st_size
    if size <= MOST_BYTES:
        return
    with open(f"/dev/fd/{descriptor}", "rb") as file:
        file.seek(size - TAIL_BYTES)
        tail = file.read(TAIL_BYTES)
    os.ftruncate(descriptor, HEAD_BYTES)
    os.write(descriptor, b"\n... a part of this log was cut out ...\n" + tail)
