"""The page in a real browser: every plot is drawn, and nothing goes wrong on the way."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.report.conftest import Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_every_plot_is_drawn_without_an_error(page: Page, tmp_path: Path) -> None:
    assert BROWSER is not None
    opened = subprocess.run(
        [
            BROWSER,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={tmp_path}", "--virtual-time-budget=60000"),
            *("--enable-logging=stderr", "--dump-dom", page.path.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert not [line for line in opened.stderr.splitlines() if "CONSOLE" in line]
    figures = opened.stdout.split("<figure>")[1:]
    assert len(figures) == len(page.figures)
    for figure in figures:
        assert 'class="main-svg"' in figure
        marks = r'class="(?:point|points|js-line|scatterlayer mlayer)"'
        assert re.search(marks, figure)
