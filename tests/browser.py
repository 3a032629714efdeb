"""A page in a real browser, once its scripts have done their work."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)

needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


@dataclass(frozen=True)
class Opened:
    """What a browser has made of a page.

    Attributes:
        html: as it stands in the end.
        console: what the page said there, a line each.
    """

    html: str
    console: list[str]


def open_in_browser(url: str, profile: Path, *, budget_s: int = 60) -> Opened:
    """Opens a page in a headless browser that has never been used.

    Args:
        profile: a folder that is not there yet.
        budget_s: of the page's own clock, which runs ahead while it waits for nothing.
    """
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={profile}", f"--virtual-time-budget={1000 * budget_s}"),
            *("--window-size=1600,1600", "--enable-logging=stderr", "--dump-dom", url),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return Opened(done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line])
