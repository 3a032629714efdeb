"""The plot in the terminal, and the two verbs."""

from __future__ import annotations

from pathlib import Path

import pytest

from samtune.analysis.response import response
from samtune.errors import SamtuneError
from samtune.report.terminal import HEIGHT, plot_lines, setting_of
from samtune.study import Study
from tests.commands import samtune_here


def test_the_plot_rises_and_falls_as_the_scores_do(study: Study) -> None:
    lines = plot_lines(study, setting_of(study, "rho"))
    field = [line.partition("│")[2] for line in lines[3 : 3 + HEIGHT]]
    best = next(row for row in field if "●" in row or "○" in row)
    # 0.1 is the middle of 0.01 to 1 on the log scale, and the two best rhos lie around it.
    assert 28 <= best.index("●") <= 40
    marks = "".join(field)
    assert (marks.count("●"), marks.count("○"), marks.count("x")) == (8, 4, 1)
    assert lines[0] == "val_accuracy against sam.rho"
    found = response(study)
    assert found is not None
    assert lines[-1] == found.sentence
    assert all(len(line) <= 80 for line in lines[:-1])
    rule = next(line for line in lines if "└" in line)
    assert rule.index("━") < 44 < rule.rindex("━") + 8


def test_choices_stand_beside_each_other(study: Study) -> None:
    lines = plot_lines(study, setting_of(study, "model.width_factor"))
    assert lines[-1].split() == ["1", "2"]
    columns = {line.index(mark) for line in lines[3:-2] for mark in "●" if mark in line}
    assert len(columns) <= 2


def test_an_unknown_setting_is_named_with_the_nearest(study: Study) -> None:
    with pytest.raises(SamtuneError, match=r"has not searched 'roh'\. Did you mean 'sam.rho'\?"):
        setting_of(study, "roh")


def test_the_verbs_print_where_the_page_is_and_plain_text(study: Study, tmp_path: Path) -> None:
    storage = ["--storage", str(study.folder.root.parent)]
    wrote = samtune_here("report", "tiny", *storage, "-o", "page.html", cwd=tmp_path)
    assert wrote.returncode == 0, wrote.stderr
    assert wrote.stdout.startswith("page.html: 4.")
    assert (tmp_path / "page.html").stat().st_size < 8e6
    drawn = samtune_here("plot", "tiny", "rho", *storage, cwd=tmp_path)
    assert drawn.returncode == 0, drawn.stderr
    assert "\x1b" not in drawn.stdout
    assert drawn.stdout.splitlines() == plot_lines(study, setting_of(study, "sam.rho"))
    wrong = samtune_here("report", "tinny", *storage, cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "Did you mean 'tiny'?" in wrong.stderr
