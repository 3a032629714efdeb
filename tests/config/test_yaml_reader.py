from __future__ import annotations

from pathlib import Path

import pytest

from samtune.config.yaml_reader import parse_yaml, read_yaml
from samtune.errors import SamtuneError, StudyFileError


def test_scalars_are_yaml_1_2() -> None:
    text = "a: 1e-3\nb: yes\nc: 010\nd: 1:30\ne: 2024-01-02\nf: true\ng: null\nh: 0.5\n"
    text += "i: =\nj: <<\n"
    assert parse_yaml(text, "x").value == {
        "a": 0.001,
        "b": "yes",
        "c": 10,
        "d": "1:30",
        "e": "2024-01-02",
        "f": True,
        "g": None,
        "h": 0.5,
        "i": "=",
        "j": "<<",
    }


def test_every_key_and_item_knows_its_line() -> None:
    lines = parse_yaml("a:\n  b: 1\n  c:\n    - 2\n    - 3\n", "x").lines
    assert lines["a",] == 1
    assert lines["a", "c"] == 3
    assert lines["a", "c", 1] == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, a: given twice, first on line 1"),
        ("a: &x [1]\nb: *x", r"line 2: aliases \(\*x\) are refused"),
        ("a: !!python/object/apply:os.system [ls]", "line 1: tags .* are refused"),
        ("a:\n\tb: 1", "line 2: tabs cannot indent YAML"),
        ("a: [1", "line 1"),
        ("[" * 30 + "]" * 30, "nested deeper than 20"),
        ("[" * 100_000, "nested deeper than 20"),
        ('a: 1\nb: "\\UFFFFFFFF"', "line 2 or below: a backslash escape names no character"),
        ('a: "\\U00110000"', "line 1 or below: a backslash escape names no character"),
        ('a: 1\nb: "\\ud800"', "line 2: a null or half a character is no text"),
        ('"a\\0": 1', "line 1: a null or half a character is no text"),
        ("a: 1\nb: " + "9" * 5000, "line 2, b: a number of 5000 characters"),
        ("a: 0x" + "f" * 5000, "line 1, a: a number of 5002 characters"),
        ("a: [1, 99999999999999999]", "line 1, a.1: integers go up to 9007199254740992, got 999"),
        ("a: 1\n? [b]\n: 2", "line 2: a key is a word, not a list or a mapping"),
        ("{{a: 1}: 2}", "line 1: a key is a word"),
    ],
)
def test_surprises_are_refused_with_their_line(text: str, message: str) -> None:
    with pytest.raises(StudyFileError, match=message):
        parse_yaml(text, "x")


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    rows = ["a0: &a0 [x, x]"]
    rows += [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    with pytest.raises(StudyFileError, match="aliases"):
        parse_yaml("\n".join(rows), "x")


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nname: caf\xe9\n")
    with pytest.raises(SamtuneError, match=r"not UTF-8 text \(line 2\)"):
        read_yaml(latin)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(SamtuneError, match="larger than 1 MiB"):
        read_yaml(large)
    with pytest.raises(SamtuneError, match="is a folder"):
        read_yaml(tmp_path)
    with pytest.raises(SamtuneError, match="No such file"):
        read_yaml(tmp_path / "absent.yaml")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: x\n")
    assert read_yaml(path).value == {"name": "x"}
