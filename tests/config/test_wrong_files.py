"""Every wrong file under `wrong/` gets the sentences it begins with, through `samtune check`."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.commands import samtune_here

WRONG = sorted((Path(__file__).parent / "wrong").glob("*.yaml"))
SLOWEST_S = 3.0
LISTED = re.compile(r"(Registered:|There are:) .*")  # what else there is changes with what is added
PLACE = r"line \d+( or below)?(, [\w./]+)?: "
WAYS_OUT = (
    r"must|should|is required|Did you mean|Registered:|There are:|instead|\btry \d|write|take|"
    r"use |keep|close|leave|set |put |add|end at|needs|go up to|refuses this|but got|is a word|"
    r"is a mapping|is no number, text|Begin|lists each"
)


def test_there_are_enough_of_them() -> None:
    assert len(WRONG) >= 60


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_a_wrong_file_gets_its_sentences_and_exit_code_2(path: Path, tmp_path: Path) -> None:
    expected = re.match(r"(?:# .*\n)+", path.read_text())
    assert expected
    sentences = [line.removeprefix("# ") for line in expected[0].splitlines()]
    started = time.process_time()
    ended = samtune_here("check", str(path), cwd=tmp_path)
    took_s = time.process_time() - started
    assert ended.returncode == 2
    assert "Traceback" not in ended.stdout + ended.stderr
    said = ended.stderr.removeprefix("samtune: ").splitlines()
    count = "1 problem" if len(sentences) == 1 else f"{len(sentences)} problems"
    assert said[0] == f"{path} has {count}:"
    assert [LISTED.sub(r"\1 ...", line.strip()) for line in said[1:]] == sentences
    assert took_s < SLOWEST_S
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_each_sentence_names_the_place_and_a_way_out(path: Path) -> None:
    for line in path.read_text().splitlines():
        if not line.startswith("# "):
            break
        sentence = line.removeprefix("# ")
        assert re.match(PLACE, sentence), sentence
        assert re.search(WAYS_OUT, re.sub(PLACE, "", sentence, count=1)), sentence
