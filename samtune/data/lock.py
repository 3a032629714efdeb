"""The lock on every data set's test split, so that no search can read it by mistake.

A split that was looked at while choosing says nothing about images that nobody has seen. Only
`samtune confirm` opens it (`samtune.study.held_out`); a test holds that nothing else does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from samtune.data.splits import Split

_unlocked: ContextVar[bool] = ContextVar("unlocked", default=False)


@contextmanager
def unlocked_test_split() -> Iterator[None]:
    """Lets `DataSplits.open_test` read the test split while the body runs."""
    token = _unlocked.set(True)
    try:
        yield
    finally:
        _unlocked.reset(token)


@dataclass(frozen=True)
class Locked:
    """An `open_test` that raises a `RuntimeError` outside of `unlocked_test_split`."""

    open_test: Callable[[], Split]

    def __call__(self) -> Split:
        """The test split, where it is unlocked."""
        if not _unlocked.get():
            raise RuntimeError(
                "the test split is locked: `samtune confirm` reads it, once. Your own code may, "
                "inside `with samtune.data.unlocked_test_split():`"
            )
        return self.open_test()
