"""The page in a real browser: every plot is drawn, and nothing goes wrong on the way."""

from __future__ import annotations

import re
from pathlib import Path

from tests.browser import needs_browser, open_in_browser
from tests.report.conftest import Page


@needs_browser
def test_every_plot_is_drawn_without_an_error(page: Page, tmp_path: Path) -> None:
    opened = open_in_browser(page.path.as_uri(), tmp_path / "profile")
    assert not opened.console
    figures = opened.html.split("<figure>")[1:]
    assert len(figures) == len(page.figures)
    for figure in figures:
        assert 'class="main-svg"' in figure
        marks = r'class="(?:point|points|js-line|scatterlayer mlayer)"'
        assert re.search(marks, figure)
