"""Edges stay edges: who may import whom, and what importing samtune costs."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "samtune"

# The floors, from the ground up; a module imports from its own and from those below it only.
LAYERS = [
    {"errors", "files", "s3", "words", "working_copy"},
    {"secrets", "given"},
    {"registry", "sam"},
    {"models", "data"},
    {"tasks"},
    {"config"},
    {"training"},
    {"preflight"},
    {"study"},
    {"analysis", "sharpness"},
    {"tracking", "export"},
    {"tuning"},
    {"report"},
    {"cli"},
    {"api"},
]
HEAVY = {
    "ray": {"tuning"},
    "optuna": {"tuning", "report"},
    "mlflow": {"tracking", "export"},
    "sklearn": {"analysis", "data"},
    "plotly": {"report"},
    "jinja2": {"report"},
    "boto3": {"s3"},
    "botocore": {"s3"},
    "curvlinops": {"sharpness"},
}


def _sources() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if p.parent != PACKAGE or p.stem[0] != "_")


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", _sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down_only(path: Path) -> None:
    level = {part: i for i, layer in enumerate(LAYERS) for part in layer}
    part = _part(path)
    assert part in level, f"give samtune/{part} a layer here"
    for name in _imported(path):
        pieces = name.split(".")
        if pieces[0] == "samtune" and len(pieces) > 1 and pieces[1] in level:
            assert level[pieces[1]] <= level[part], f"{path.name} imports {name}"


def test_no_ring_among_modules() -> None:
    names = {
        "samtune." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in _sources()
        if path.stem != "__init__"
    }
    graph = {name: {n for n in _imported(path) if n in names} for name, path in names.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError and names the ring


@pytest.mark.parametrize("path", _sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_each_heavy_library_has_one_door(path: Path) -> None:
    for name in _imported(path):
        allowed = HEAVY.get(name.split(".")[0])
        assert allowed is None or _part(path) in allowed, f"{path.name} imports {name}"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("samtune", {"torch", "ray", "optuna", "mlflow", "pydantic"}),
        (
            "samtune.api",
            {"torch", "ray", "optuna", "mlflow", "plotly", "jinja2", "rich", "scipy"},
        ),
        ("samtune.cli", {"torch", "ray", "optuna", "mlflow", "plotly", "jinja2", "numpy"}),
        ("samtune.study", {"torch", "ray", "optuna", "mlflow", "numpy"}),
        ("samtune.study.trial_run", {"ray", "optuna", "mlflow"}),  # samtune.training with it
        ("samtune.analysis", {"torch", "ray", "optuna", "mlflow", "numpy"}),
        ("samtune.sharpness", {"torch", "ray", "optuna", "mlflow", "scipy", "curvlinops"}),
        ("samtune.report.page", {"torch", "ray", "optuna", "mlflow", "plotly", "scipy"}),
        ("samtune.tracking", {"torch", "ray", "optuna", "mlflow"}),
    ],
)
def test_importing_stays_light(module: str, absent: set[str]) -> None:
    code = f"import {module}, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not absent & set(loaded.stdout.split())


def test_public_names_load_on_first_use() -> None:
    import samtune

    for name in samtune.__all__:
        assert callable(getattr(samtune, name))
    assert set(samtune.__all__) <= set(dir(samtune))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = samtune.nothing
