"""What a user can cause and can fix.

The command line prints these without a traceback and exits with `exit_code`. A wrong argument to a
Python function stays a `ValueError`; an `assert` states an invariant of our own.
"""

from __future__ import annotations

import difflib
import os
import re
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

NEAR = 0.6
SHORTEST_BEGINNING = 4


class SamtuneError(Exception):
    """A mistake or a condition that its message explains, with the way out."""

    exit_code = 2

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter show in the place of a traceback."""
        return [f"samtune: {self}"]


class StudyFileError(SamtuneError):
    """Everything that is wrong with a study file, at once.

    Args:
        source: the file, as the user named it.
        problems: one sentence each, with line and path where they are known.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = list(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{source} has {count}:", *(f"  {p}" for p in problems)]))


class UnknownNameError(SamtuneError):
    """A name that is not registered, with the nearest one that is."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        listed = ", ".join(names) if len(names) <= 20 else f"{', '.join(names[:20])}, ..."
        super().__init__(
            f"No {kind} named {name!r}.{did_you_mean(name, names)} "
            f"Registered: {listed.removesuffix('.')}."
        )


class NoUsableTrialError(SamtuneError):
    """The study ended without one trial that can be used."""

    exit_code = 1


class EndedEarlyError(SamtuneError):
    """A session ended before its study was done, and not because somebody asked it to."""

    exit_code = 1


class DamagedFileError(SamtuneError):
    """A file of a study that samtune has not left so."""

    def __init__(self, path: Path, reason: str) -> None:
        self.reason = reason
        super().__init__(f"{path} is damaged ({reason}); restore it from a backup")


class FencedError(SamtuneError):
    """A newer session or attempt has taken over; this one writes nothing more."""


class LostReaderError(SamtuneError):
    """A process that read images for a trial was killed, most often for want of memory."""

    exit_code = 1


class LostRankError(SamtuneError):
    """One of the processes that compute a trial together was killed."""

    exit_code = 1


def raised(error: BaseException) -> str:
    """What foreign code raised, and where: `KeyError: 'x' (my_models.py, line 12)`."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")
    not_theirs = {Path(__file__).parent, Path(os.__file__).parent}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if (
            path.is_file()
            and not not_theirs & {*path.parents}
            and "site-packages" not in path.parts
        ):
            return f"{text} ({path.name}, line {frame.lineno})"
    return text


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A suggestion with a leading space, or nothing where no known name is near.

    Names with dots or slashes are compared part by part from the end: a section in common makes
    nothing near, and `sam.lr` is near to `optimizer.lr`.
    """
    ranked = [(nearness, other) for other in known if (nearness := _nearness(name, other))]
    return f" Did you mean {max(ranked, key=lambda pair: pair[0])[1]!r}?" if ranked else ""


def _nearness(name: str, other: str) -> float:
    parts, others = re.split("[./]", name), re.split("[./]", other)
    last = _similarity(parts[-1], others[-1])
    if last < NEAR:
        return 0
    ahead, others_ahead = ".".join(parts[:-1]), ".".join(others[:-1])
    return last + 0.1 * (ahead == others_ahead or _similarity(ahead, others_ahead))


def _similarity(one: str, other: str) -> float:
    if not one or not other:
        return 0
    one, other = sorted((one.lower(), other.lower()), key=len)
    begins = len(one) >= SHORTEST_BEGINNING and other.startswith(one)
    return max(difflib.SequenceMatcher(None, one, other).ratio(), 0.9 * begins)
