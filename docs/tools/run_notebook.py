"""Runs a notebook anew and keeps its outputs: `python docs/tools/run_notebook.py FILE.ipynb`."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

KEPT = {"kernelspec", "samtune"}  # of a notebook's metadata: the rest is this machine's


def executed(path: Path, folder: Path) -> dict[str, Any]:
    """The notebook, run in a folder, with its outputs and the digest of what it ran."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.samtune = {"ran": digest(notebook.cells)}
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=600, record_timing=False, resources=resources).execute()
    notebook.metadata = {k: v for k, v in notebook.metadata.items() if k in KEPT}
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            output.pop("transient", None)
    found: dict[str, Any] = json.loads(nbformat.writes(notebook))
    return found


def digest(cells: list[dict[str, Any]]) -> str:
    """Of the sources of all cells of code."""
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


if __name__ == "__main__":
    file = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as empty:
        text = json.dumps(executed(file, Path(empty)), indent=1, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8")
