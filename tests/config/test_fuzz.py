"""Whatever a study file holds, reading it ends in a study or in sentences: at once, and small."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from samtune.config.schema import StudyConfig
from samtune.config.study_file import check_study, read_study, to_yaml
from samtune.config.yaml_reader import Document, parse_yaml
from samtune.errors import SamtuneError, StudyFileError
from tests.config.test_wrong_files import WAYS_OUT
from tests.conftest import TINY

SECONDS = 3.0
TOLD = settings(
    deadline=None, max_examples=100, derandomize=True, suppress_health_check=list(HealthCheck)
)


def _read(content: bytes, folder: Path) -> StudyConfig | SamtuneError:
    path = folder / "study.yaml"
    path.write_bytes(content)
    started = time.process_time()
    try:
        return read_study(path)
    except SamtuneError as error:
        return error
    finally:
        assert time.process_time() - started < SECONDS


@TOLD
@given(st.binary(max_size=2000))
@example(b"\xff\xfe" + "name: x".encode("utf-16-le"))
@example(b"name: \x85\xc2\x85")
@example(b"%YAML 1.1\n---\nname: x")
@example(b"? ?")
@example(b"a: !<tag:yaml.org,2002:binary> x")
@example(b"a: |\n  \x7f\x00")
def test_any_bytes_are_a_study_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    _read(content, tmp_path_factory.mktemp("bytes"))


MARKS = st.sampled_from([*"{}[]:,-?&*!|>'\"%@`#~<=\n\t ", "---\n", "...\n", "<<: ", "!!", "\\u"])
WORDS = st.sampled_from(re.findall(r"[\w.]+", TINY))


@TOLD
@given(st.lists(MARKS | WORDS, max_size=80).map("".join))
def test_any_yaml_is_a_study_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    _read(text.encode(), tmp_path_factory.mktemp("yaml"))


STUDY = parse_yaml(TINY, "tiny").value
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats()
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
    | st.sampled_from(["sgd", "adam", "muon", "digits", "unet", "resnet", "auto", "${X}", "a.b"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "float", "int", "choice", "when", "x"]), inner)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        *("name", "trial", "search_space", "study", "model", "dataset", "optimizer", "sam"),
        *("training", "depth", "lr", "rho", "epochs", "batch_size", "metric", "trials", "when"),
        *("sam.rho", "model.depth", "model.name", "optimizer.name", "scheduler", "x", "token"),
    ]
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = [path]
    for key, item in items if isinstance(value, dict | list) else ():
        found += _paths(item, (*path, key)) if isinstance(item, dict | list) else [(*path, key)]
    return found


@st.composite
def near_misses(draw: st.DrawFn) -> Any:
    """The tiny study with one to three of its values replaced, removed or added."""
    study = json.loads(json.dumps(STUDY))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_paths(study)))
        if not path:
            continue
        parent = study
        for part in path[:-1]:
            parent = parent[part]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                parent[path[-1]] = draw(VALUES)
            case "remove":
                del parent[path[-1]]
            case "add" if isinstance(parent, dict):
                parent[draw(KEYS)] = draw(VALUES)
    return study


@TOLD
@given(near_misses())
def test_a_near_miss_is_a_study_or_sentences_that_help(study: Any) -> None:
    lines = {(): 1}
    started = time.process_time()
    try:
        config = check_study(Document("near.yaml", study, lines), Path.cwd())
    except StudyFileError as error:
        for problem in error.problems:
            assert problem.startswith("line 1"), problem
            assert re.search(WAYS_OUT, problem) or "got " in problem, problem
        config = None
    assert time.process_time() - started < SECONDS
    if config is not None:
        assert check_study(parse_yaml(to_yaml(config), "copy"), Path.cwd()) == config


LARGE = {
    "fifty megabytes": "#" * (50 * 2**20),
    "a list": "[" + "1," * 500_000 + "1]",
    "keys": "\n".join(f"k{i}: 1" for i in range(90_000)),
    "one word": "name: " + "x" * 1_000_000,
    "escapes": 'name: "' + "\\x41" * 250_000 + '"',
    "blank lines": "\n" * 1_000_000,
    "documents": "---\n" * 250_000,
    "brackets": "[" * 1_000_000,
    "folded": "name: >\n" + "  x\n" * 240_000,
}
MEASURE = """
import resource, sys
from pathlib import Path
from samtune.config.yaml_reader import read_yaml
from samtune.errors import SamtuneError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_yaml(Path(sys.argv[1]))
except SamtuneError:
    pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


UNLIKE = ("fifty megabytes", "a list", "escapes", "brackets")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, id=name, marks=[] if name in UNLIKE else [pytest.mark.slow])
        for name, text in LARGE.items()
    ],
)
def test_a_large_file_takes_neither_long_nor_much(tmp_path: Path, text: str) -> None:
    path = tmp_path / "large.yaml"
    path.write_text(text)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert float(measured.stdout) < 200  # MB beyond what importing takes
    assert after.ru_utime - before.ru_utime < 2 * SECONDS  # imports included
