"""The code blocks of README.md, CONTRIBUTING.md and docs/*.md, and of what language each is."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = ("samtune", "pip", "python", "python3", "ray", "mlflow", "curl", "export", "mkdocs")
LANGUAGES = {"sh": "shell", "python": "python", "yaml": "yaml", "text": "text"}
BLOCK = re.compile(
    r"^```(\w*)(?: title=\"([\w.]+)\")?\n(.*?)^```$|((?:^    [^\n]*\n|^\n(?=    ))+)",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One block.

    Attributes:
        kind: `shell`, `python`, `yaml`, or `text` for what is only to be looked at.
        title: the file that the page says to write it into; empty where there is none.
    """

    page: str
    line: int
    kind: str
    text: str
    title: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Of a shell block: each command, its comment left out."""
        lines = [re.sub(r"\s+#.*", "", line) for line in self.text.splitlines()]
        return [c.strip() for line in lines for c in line.split(" && ") if c.strip()]


def blocks(page: Path) -> list[Block]:
    """Those of a page, from top to bottom."""
    return list(_found(page.name, page.read_text(encoding="utf-8")))


def all_blocks(kind: str) -> list[Block]:
    """Those of one kind in all pages."""
    return [block for page in PAGES for block in blocks(page) if block.kind == kind]


def inline_commands(page: Path) -> list[str]:
    """What a page's sentences and tables say between backticks that begins with `samtune`."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(found.split()) for found in re.findall(r"`(samtune [^`]+)`", text)]


def words(command: str) -> list[str]:
    """As a shell splits them."""
    return shlex.split(command)


def _found(page: str, text: str) -> Iterator[Block]:
    for match in BLOCK.finditer(text):
        line = text[: match.start()].count("\n") + 1
        if match[4] is None:
            yield Block(page, line, LANGUAGES[match[1]], match[3], match[2] or "")
            continue
        inside = re.sub("^    ", "", match[4], flags=re.MULTILINE)
        before = text[: match.start()].rstrip("\n").rpartition("\n")[2]
        if inside.strip() and not before.startswith(("- ", "  ", "::: ")):  # else not code
            line += len(inside) - len(inside.lstrip("\n"))
            yield Block(page, line, _kind(inside.strip()), inside.strip("\n") + "\n")


def _kind(text: str) -> str:
    if text.split(maxsplit=1)[0] in COMMANDS:
        return "shell"
    if re.match(r"(name|trial|study|search_space|plugins):", text):
        return "yaml"
    try:
        nodes = [*ast.walk(ast.parse(text))]
    except SyntaxError:
        return "text"
    is_code = any(isinstance(node, ast.Import | ast.ImportFrom | ast.Call) for node in nodes)
    return "python" if is_code else "text"
