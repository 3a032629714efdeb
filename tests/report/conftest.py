"""A study with a rise and a fall over rho, checked by hand, and its page."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samtune.config.study_file import check_study
from samtune.config.yaml_reader import parse_yaml
from samtune.report.page import write_report
from samtune.study.study import Study
from tests.conftest import TINY
from tests.synthetic import Run, write_study

WIDTHS = (
    "  optimizer.lr: {float: [0.01, 0.5], log: true}",
    "  model.width_factor: {choice: [1, 2]}",
)
BASELINE = [0.5, 0.6, 0.7]


def config_of(*replacements: tuple[str, str]) -> Any:
    text = TINY
    for old, new in (WIDTHS, *replacements):
        assert old in text, old
        text = text.replace(old, new)
    return check_study(parse_yaml(text, "tiny.yaml"), Path.cwd())


def risen_and_fallen() -> list[Run]:
    """Twelve rhos with their best at 0.1, every third stopped at epoch 1, and one that diverged.

    Trials begin one after another, two at a time.
    """
    runs = []
    for i, rho in enumerate(np.geomspace(0.01, 1.0, 12)):
        end = round(0.95 - 0.2 * math.log10(rho / 0.1) ** 2, 4)
        curve = [end - 0.2, end - 0.1, end]
        stopped = i % 3 == 2
        state = "stopped" if stopped else "finished"
        values = {"sam.rho": float(rho), "model.width_factor": 1 + i % 2}
        runs.append(Run(values, curve[: 1 if stopped else 3], state, 1000 * (i // 2)))
    lost = Run({"sam.rho": 0.9, "model.width_factor": 2}, [0.1], "diverged", 9000)
    return [*runs, lost]


@dataclass(frozen=True)
class Page:
    """A page as a reader or a browser takes it apart."""

    path: Path
    html: str
    text: str
    figures: list[dict[str, Any]]
    tags: list[tuple[str, dict[str, str | None]]]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[dict[str, Any]] = []
        self.text: list[str] = []
        self._in: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._in.append("figure" if "data-plot" in dict(attrs) else tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._in.pop()

    def handle_data(self, data: str) -> None:
        if not self._in:
            self.text.append(data)
        elif self._in[-1] == "figure":
            self.figures.append(json.loads(data))


def read_page(path: Path) -> Page:
    reader = _Reader()
    html = path.read_text()
    reader.feed(html)
    return Page(path, html, " ".join(" ".join(reader.text).split()), reader.figures, reader.tags)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return write_study(tmp_path_factory.mktemp("study"), config_of(), risen_and_fallen(), BASELINE)


@pytest.fixture(scope="module")
def page(study: Study) -> Page:
    return read_page(write_report(study))


@pytest.fixture
def paged(tmp_path: Path) -> Callable[..., Page]:
    """The page of a study of these runs."""

    def make(runs: list[Run], *replacements: tuple[str, str], baseline: Any = None) -> Page:
        written = write_study(tmp_path, config_of(*replacements), runs, baseline)
        return read_page(write_report(written))

    return make
