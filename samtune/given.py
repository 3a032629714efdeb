"""Code that lies in no module: classes and functions of a notebook, or of the script that runs.

Another process cannot import it. It is pickled by value and handed on (`packed`), never written to
a study's folder; and since nothing on the disk says what it was, it is known by a digest of what
it does (`digest`).
"""

from __future__ import annotations

import dis
import functools
import hashlib
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from samtune.errors import SamtuneError, raised
from samtune.words import size

MOST_BYTES = 64 * 2**20
DIGITS = 8
DEEPEST = 20
PLAIN = (int, float, complex, bool, str, bytes, type(None), type(...))


def in_no_module(code: Any) -> bool:
    """Whether another process cannot import it: it is of `__main__`, or of no file's module."""
    name = getattr(code, "__module__", None) or "__main__"
    return name == "__main__" or getattr(sys.modules.get(name), "__spec__", None) is None


def digest(factory: Callable[..., Any]) -> str:
    """Short, and equal for code that does the same; comments and line numbers do not count.

    It is of the compiled code, with all that it uses of its own kind (helper classes, functions
    and plain constants of the same notebook or package). Another version of Python may compile it
    otherwise.
    """
    sha = hashlib.sha256()
    for piece in _Reader(factory).pieces(factory):
        sha.update(f"{len(piece)} {piece}".encode())
    return sha.hexdigest()[:DIGITS]


def packed(what: Any) -> bytes:
    """Code, pickled by value where another process cannot import it; `pickle` reads it.

    Raises:
        SamtuneError: it holds something that cannot be sent to another process, or far too much.
    """
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(what)
    except Exception as error:  # whatever the code holds may raise anything
        raise SamtuneError(
            f"the code given in Python cannot be sent to the workers: {raised(error)}. Put it into "
            "a module, and name that under plugins"
        ) from error
    if len(data) > MOST_BYTES:
        raise SamtuneError(
            f"the code given in Python takes {size(len(data))}, more than {size(MOST_BYTES)}: it "
            "uses a variable that holds data. Load that inside of the function that needs it"
        )
    return data


class _Reader:
    """Tells code in texts that are the same in every process."""

    def __init__(self, factory: Any) -> None:
        self._home = _package(factory)
        self._seen: set[int] = set()

    def pieces(self, value: Any, depth: int = 0) -> Iterator[str]:
        """The texts of one value, and of what it uses."""
        if isinstance(value, staticmethod | classmethod):
            value = value.__func__
        if isinstance(value, property):
            value = (value.fget, value.fset, value.fdel)
        if isinstance(value, functools.partial):
            value = (value.func, value.args, value.keywords)
        if isinstance(value, PLAIN):
            yield repr(value)
        elif isinstance(value, tuple | list | dict | set | frozenset):
            yield from self._of_container(value, depth)
        elif isinstance(value, CodeType):
            yield from self._of_code(value, depth)
        elif isinstance(value, ModuleType):
            yield value.__name__
        elif not isinstance(value, FunctionType | type):
            yield from self.pieces(type(value), depth)  # an object: what it holds may change
        elif not self._is_own(value):
            yield f"{value.__module__}.{value.__qualname__}"
        elif id(value) not in self._seen:
            self._seen.add(id(value))
            yield from self._of_class(value) if isinstance(value, type) else self._of(value)

    def _of_container(self, value: Any, depth: int) -> Iterator[str]:
        yield f"{type(value).__name__} {len(value)}"
        if depth > DEEPEST:
            return
        items = value.items() if isinstance(value, dict) else value
        parts = [list(self.pieces(item, depth + 1)) for item in items]
        for part in sorted(parts) if isinstance(value, set | frozenset) else parts:
            yield from part

    def _of_code(self, code: CodeType, depth: int) -> Iterator[str]:
        yield code.co_code.hex()
        yield from (*code.co_names, *code.co_varnames, *code.co_freevars)
        for constant in code.co_consts:
            yield from self.pieces(constant, depth)

    def _of(self, function: FunctionType) -> Iterator[str]:
        code = function.__code__
        yield from self.pieces((code, function.__defaults__, function.__kwdefaults__))
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            yield name
            yield from self.pieces(cell.cell_contents)
        for name in sorted(_names(code) & function.__globals__.keys()):
            yield name
            yield from self.pieces(function.__globals__[name])

    def _of_class(self, cls: type) -> Iterator[str]:
        yield from self.pieces(cls.__bases__)
        for name, member in sorted(vars(cls).items()):
            is_code = isinstance(member, FunctionType | property | staticmethod | classmethod)
            if is_code or not name.startswith(("__", "_abc_")):
                yield name
                yield from self.pieces(member)

    def _is_own(self, code: FunctionType | type) -> bool:
        return in_no_module(code) or _package(code) == self._home


def _package(code: Any) -> str:
    return str(code.__module__).partition(".")[0]


def _names(code: CodeType) -> set[str]:
    """The globals that code uses, and the functions inside of it."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    used = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    return used.union(*map(_names, inner))
