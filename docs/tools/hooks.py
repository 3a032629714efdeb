"""What MkDocs is told beyond its settings: the README and the notebooks are pages, too."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parents[1]
sys.path.insert(0, str(DOCS / "tools"))

from notebook import as_markdown  # noqa: E402 - MkDocs loads this file from anywhere


def on_files(files: Files, config: Any) -> Files:
    """Adds the README as the first page, and each notebook with the outputs that it keeps."""
    files.append(File.generated(config, "index.md", content=_front_page()))
    for notebook in sorted(DOCS.glob("*.ipynb")):
        files.append(File.generated(config, f"{notebook.stem}.md", content=as_markdown(notebook)))
    return files


def _front_page() -> str:
    """The README, its links as they are from here; other files of the repository are no pages."""
    text = (DOCS.parent / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    return re.sub(r"\[([^]]+)\]\((?:[A-Z]+|deploy/\w+)\.md\)", r"`\1`", text)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Without the links that lead out of `docs/`, to what is no page."""
    return re.sub(r"\[([^]]+)\]\(\.\./[^)]+\)", r"`\1`", markdown)
