"""What the page is made of: sections of sentences, plots, tables and lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from samtune.analysis import Answer, Response
from samtune.study import Study


@dataclass(frozen=True)
class Plot:
    """A plot, and what it shows in words: for who cannot see it, and for who sees it first.

    Attributes:
        figure: plotly's own JSON.
        notes: what was left out, and why.
    """

    figure: str
    shows: str
    notes: Sequence[str] = ()
    kind: Literal["plot"] = "plot"


@dataclass(frozen=True)
class Table:
    """A table; a column whose heading starts with `>` holds numbers.

    Attributes:
        marked: the row that matters most, if there is one.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: int | None = None
    kind: Literal["table"] = "table"


@dataclass(frozen=True)
class Items:
    """A list of sentences."""

    lines: Sequence[str]
    kind: Literal["items"] = "items"


@dataclass(frozen=True)
class Quote:
    """Text to be copied as it is."""

    text: str
    kind: Literal["quote"] = "quote"


Part = str | Plot | Table | Items | Quote  # a text is a paragraph


@dataclass(frozen=True)
class Section:
    """A heading with what belongs to it; where a study cannot fill it, a sentence that says why."""

    name: str
    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Subject:
    """A study and what its trials come to, found once for all sections."""

    study: Study
    answer: Answer

    @property
    def response(self) -> Response | None:
        """Which rho to take; None where rho was not searched."""
        return self.answer.response


Maker = Callable[[Subject], Section]
