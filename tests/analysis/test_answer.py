"""What a study comes to is found once, and again as soon as anything it was made of differs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from samtune.analysis import answer
from samtune.analysis.answer import ANSWER_FILE, Answer
from samtune.analysis.audit import audit
from samtune.analysis.response import response
from samtune.analysis.warnings import warnings_of
from samtune.study import Study, StudyFolder
from samtune.study.derived import read_derived
from tests.synthetic import Make, Run

module = import_module("samtune.analysis.answer")  # its function has the same name


@pytest.fixture
def folder(written: Callable[..., Study], study_config: Make) -> StudyFolder:
    """Twelve trials at rest, best at a rho near 0.1."""
    runs = [
        Run({"sam.rho": 0.01 * 1.5**i, "optimizer.lr": 0.1}, [0.5, 0.6, 0.9 - 0.01 * (i - 6) ** 2])
        for i in range(12)
    ]
    study = written(study_config(), runs, baseline=[0.5, 0.6, 0.7])
    return study.folder


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change time cannot be set back, so what is written now counts as long written."""
    monkeypatch.setattr("samtune.study.index.SETTLED_NS", -1)


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One word for each time that the answer is found, not read."""
    found: list[str] = []

    def counted(study: Study) -> object:
        found.append(study.name)
        return response(study)

    monkeypatch.setattr("samtune.analysis.response.response", counted)
    return found


def _read(folder: StudyFolder) -> Study:
    return Study(folder, folder.config())


@pytest.mark.usefixtures("settled")
def test_what_is_read_is_what_was_found_to_the_last_bit(
    folder: StudyFolder, finds: list[str]
) -> None:
    study = _read(folder)
    expected = Answer(response(study), audit(study), warnings_of(study))
    assert expected.response is not None
    assert expected.response.rho is not None
    assert answer(study) == expected
    assert answer(_read(folder)) == expected
    assert finds == ["tiny"]


@pytest.mark.usefixtures("settled")
def test_a_kept_answer_is_shown_without_importing_what_computes_it(folder: StudyFolder) -> None:
    """It takes a fifth of the time of `samtune show`."""
    answer(_read(folder))
    code = (
        "import sys; from samtune.study import index; index.SETTLED_NS = -1; "
        "from samtune.cli.show import show; "
        f"show('tiny', None, {str(folder.root.parent)!r}); print(*sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "rho" in shown.stdout
    assert not {"numpy", "scipy"} & set(shown.stdout.split())


def _another_epoch(folder: StudyFolder) -> None:
    path = folder.trial("t0003").journal
    path.write_bytes(path.read_bytes() + b"\n")


def _an_outcome_gone(folder: StudyFolder) -> None:
    (folder.trial("t0003").root / "outcome.json").unlink()


def _a_trial_gone(folder: StudyFolder) -> None:
    shutil.rmtree(folder.trial("t0003").root)


def _damaged(folder: StudyFolder) -> None:
    path = folder.root / ANSWER_FILE
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 40))


def _gone(folder: StudyFolder) -> None:
    (folder.root / ANSWER_FILE).unlink()


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    "change", [_another_epoch, _an_outcome_gone, _a_trial_gone, _damaged, _gone]
)
def test_a_change_of_anything_has_it_found_anew(
    folder: StudyFolder, finds: list[str], change: Callable[[StudyFolder], None]
) -> None:
    answer(_read(folder))
    change(folder)
    found = answer(_read(folder))
    assert found.response == response(_read(folder))
    assert len(finds) == 2


@pytest.mark.usefixtures("settled")
def test_another_search_space_is_another_question(folder: StudyFolder, finds: list[str]) -> None:
    answer(_read(folder))
    config = folder.config()
    without = {k: v for k, v in config.search_space.items() if k != "optimizer.lr"}
    narrower = config.model_copy(update={"search_space": without})
    assert answer(Study(folder, narrower)).response == response(Study(folder, narrower))
    assert len(finds) == 2


@pytest.mark.usefixtures("settled")
def test_other_rules_find_it_anew(
    folder: StudyFolder, finds: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(_read(folder))
    edited = tmp_path / "rules"
    shutil.copytree(module.RULES, edited, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "RULES", edited)
    answer(_read(folder))
    assert len(finds) == 2


def test_what_was_just_written_is_not_kept(folder: StudyFolder) -> None:
    answer(_read(folder))  # its change times are of this moment, and the next change may share them
    assert not (folder.root / ANSWER_FILE).exists()


@pytest.mark.usefixtures("settled")
def test_a_running_study_keeps_none(folder: StudyFolder) -> None:
    with folder.session():
        answer(_read(folder))
        assert not (folder.root / ANSWER_FILE).exists()


@pytest.mark.usefixtures("settled")
def test_an_answer_of_another_study_is_not_believed(
    folder: StudyFolder, finds: list[str], tmp_path: Path
) -> None:
    answer(_read(folder))
    other = tmp_path / "copies" / "tiny"
    shutil.copytree(folder.root, other)
    copy = _read(StudyFolder(other))
    assert read_derived(other / ANSWER_FILE, copy.source) is None
    answer(copy)
    assert len(finds) == 2
