"""The tables of README.md name every fault, and tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parent
README = (HERE / "README.md").read_text()
ROW = re.compile(r"^\| ([FO]\d+) \| ([^|]+) \| ([^|]*) \|$", re.MULTILINE)
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def _functions(path: Path) -> set[str]:
    assert path.is_file(), path
    return {n.name for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)}


def test_every_fault_has_a_row_and_the_tests_in_it_exist() -> None:
    rows = [row for row in ROW.findall(README) if row[0].startswith("F")]
    assert [key for key, _, _ in rows] == [f"F{number}" for number in range(1, 81)]
    for key, _, shown in rows:
        named = NAMED.findall(shown)
        assert named or re.match(r"[A-Z].{20,}\.$", shown), f"{key}: neither a test nor a reason"
        for path, test in named:
            assert test in _functions(TESTS / path), f"{key}: {path} has no {test}"


def test_every_point_of_the_promise_is_checked_by_the_oracle() -> None:
    rows = [row for row in ROW.findall(README) if row[0].startswith("O")]
    assert [key for key, _, _ in rows] == [f"O{number}" for number in range(1, 9)]
    checks = _functions(HERE / "oracle.py")
    for key, _, checked in rows:
        names = re.findall(r"`(\w+)`", checked)
        assert set(names) <= checks, key
        assert names or key == "O7"
