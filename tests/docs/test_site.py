"""The guide as a site: every page has its place, what is generated is up to date, and it builds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.docs.blocks import ROOT

DOCS = ROOT / "docs"
NOTEBOOKS = sorted(DOCS.glob("*.ipynb"))
sys.path.insert(0, str(DOCS / "tools"))

from run_notebook import digest, executed  # noqa: E402
from study_file import PAGE, page  # noqa: E402


def _places(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for item in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _places(item)


def test_every_page_has_one_place_in_the_navigation() -> None:
    settings = YAML(typ="safe").load(ROOT / "mkdocs.yml")
    pages = [p.name for p in DOCS.glob("*.md")] + [f"{n.stem}.md" for n in NOTEBOOKS]
    assert sorted(_places(settings["nav"])) == sorted([*pages, "index.md"])


def test_the_study_file_in_full_is_what_the_schema_says() -> None:
    assert PAGE.read_text() == page(), "run: python docs/tools/study_file.py"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_keeps_the_outputs_of_the_code_that_it_shows(path: Path) -> None:
    notebook = json.loads(path.read_text())
    ran = notebook["metadata"]["samtune"]["ran"]
    assert ran == digest(notebook["cells"]), f"run: python docs/tools/run_notebook.py {path.name}"
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", [])]
    assert outputs
    assert not [o for o in outputs if o["output_type"] == "error"]
    # Neither paths nor names of the machine that ran it; "</" of HTML is no path.
    assert not re.search(r"(?<![<\w])/(home|root|tmp|work|Users|mnt)\b", json.dumps(outputs))
    assert path.stat().st_size < 200_000


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = executed(path, tmp_path)  # an error in a cell is raised
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", [])]
    assert not [o for o in outputs if o["output_type"] == "stream"]  # no library speaks up
    shown = json.dumps(outputs)
    assert "study first_study" in shown
    assert "finished" in shown


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    for name in ("index.html", "own_images/index.html", "first_study/index.html", "api/index.html"):
        assert (tmp_path / name).is_file()
    assert "run_study" in (tmp_path / "api/index.html").read_text()
