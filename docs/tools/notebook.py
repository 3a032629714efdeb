"""An executed notebook as a page of Markdown, with the outputs that are kept in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PLOT = "application/vnd.plotly.v1+json"


def as_markdown(path: Path) -> str:
    """The page."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = [part for cell in cells for part in _parts(cell)]
    return "\n\n".join(parts) + "\n"


def _parts(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        yield _output(output)


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {"text/plain": output.get("text", "")})
    if PLOT in data:
        import plotly.io

        figure = plotly.io.from_json(json.dumps(data[PLOT]), skip_invalid=True)
        return str(plotly.io.to_html(figure, full_html=False, include_plotlyjs=True))
    if "text/html" in data:
        return "".join(data["text/html"])
    return f"```text\n{''.join(data['text/plain'])}\n```"
