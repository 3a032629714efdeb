"""What MkDocs is told beyond its settings: the notebook as a page, and links out of `docs/`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from notebook import as_markdown

SOURCE = "https://github.com/search?q=samtune&path="
DOCS = Path(__file__).parents[1]


def on_files(files: Files, config: Any) -> Files:
    """Adds a page for each notebook, with its outputs as they are kept in it."""
    for notebook in sorted(DOCS.glob("*.ipynb")):
        files.append(File.generated(config, f"{notebook.stem}.md", content=as_markdown(notebook)))
    return files
