"""What a study's folder brings along is data: nothing in it is executed, and nothing leads out."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from samtune.errors import SamtuneError
from samtune.export.formats import load_exported
from samtune.study.folder import StudyFolder
from samtune.study.journal import Journal
from samtune.training.checkpoint import load_state
from tests.commands import samtune_here
from tests.conftest import TINY


class Planted:
    """Unpickled with code, it leaves a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study file and what was trained of it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(TINY.replace("study: {", "study: {register_model: false, "))
    ended = samtune_here("train", "tiny.yaml", "training.epochs=2", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture
def planted(tmp_path: Path, trained: Path) -> tuple[Path, Path]:
    """The same where every loadable file is a pickle that runs code."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    marker = tmp_path / "executed"
    root = tmp_path / "samtune_studies/tiny-train"
    trial = root / "trials/t0001"
    journal = Journal(trial / "epochs.jsonl")
    entries = journal.epochs()
    journal.path.unlink()
    for entry in entries:  # anew, so that the digests are those of the pickles
        state = trial / entry.state
        torch.save({"epoch": Planted(marker)}, state)
        journal.append(replace(entry, sha256=hashlib.sha256(state.read_bytes()).hexdigest()))
    tune = root / ".tune/session-1"
    tune.mkdir(parents=True)
    for name in ("tuner.pkl", "searcher-state-x.pkl", "experiment_state-x.json"):
        (tune / name).write_bytes(pickle.dumps(Planted(marker)))
    return tmp_path, marker


def test_the_plant_does_run_where_a_pickle_is_trusted(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Planted(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "verb",
    [
        ["show", "tiny-train"],
        ["show", "tiny-train", "t0001"],
        ["list"],
        ["logs", "tiny-train", "t0001"],
        ["export", "tiny-train", "-o", "best.pt"],
        ["train", "tiny.yaml", "training.epochs=2"],  # goes on from the states, if it has to
    ],
    ids=lambda verb: verb[0],
)
def test_no_verb_runs_code_from_a_study(planted: tuple[Path, Path], verb: list[str]) -> None:
    folder, marker = planted
    if verb[0] == "train":
        (folder / "samtune_studies/tiny-train/trials/t0001/outcome.json").unlink()
    ended = samtune_here(*verb, cwd=folder)
    assert not marker.exists()
    assert "Traceback" not in ended.stderr


def test_weights_that_are_a_pickle_are_refused_and_not_run(planted: tuple[Path, Path]) -> None:
    folder, marker = planted
    (best,) = (folder / "samtune_studies/tiny-train/trials/t0001").glob("best-*.safetensors")
    best.write_bytes(pickle.dumps(Planted(marker)))
    ended = samtune_here("export", "tiny-train", "-o", "best.pt", cwd=folder)
    assert ended.returncode == 2
    assert "are damaged or gone" in ended.stderr
    assert not marker.exists()
    assert not (folder / "best.pt").exists()


def test_a_state_that_is_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    torch.save({"epoch": Planted(tmp_path / "executed")}, path)
    assert load_state(path, hashlib.sha256(path.read_bytes()).hexdigest()) is None
    assert not (tmp_path / "executed").exists()


def test_an_export_that_is_a_pickle_with_code_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    for content in ({"weights": {}, "model": Planted(tmp_path / "executed")}, None):
        torch.save(content, path) if content else path.write_bytes(b"no such file")
        with pytest.raises(SamtuneError, match=r"best.pt is no file of `samtune export`"):
            load_exported(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.ray
def test_resume_runs_no_code_from_a_study(
    planted: tuple[Path, Path], mlflow_here: Path, local_ray: None
) -> None:
    folder, marker = planted
    (folder / "samtune_studies/tiny-train/trials/t0001/outcome.json").unlink()
    samtune_here("resume", "tiny-train", cwd=folder)
    assert not marker.exists()


def test_an_export_follows_no_link(planted: tuple[Path, Path]) -> None:
    folder, _ = planted
    (folder / "precious").write_text("kept")
    (folder / "best.pt").symlink_to("precious")
    ended = samtune_here("export", "tiny-train", "-o", "best.pt", "--force", cwd=folder)
    assert ended.returncode == 2
    assert "is no ordinary file" in ended.stderr
    assert (folder / "precious").read_text() == "kept"


@pytest.mark.parametrize("name", ["../up", "/etc", "..", ".", "a/b", "-x", "", "x\n", "ü"])
def test_a_name_that_could_leave_the_storage_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "up").mkdir()
    with pytest.raises(SamtuneError, match="is no study name"):
        StudyFolder.open(tmp_path / "studies", name)
