"""What one does with studies, as one types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from samtune.config.schema import StudyConfig
from samtune.study import StudyFolder, study_names
from tests.checkpointed import write_trial
from tests.commands import samtune_here

Make = Callable[..., StudyConfig]


@pytest.fixture
def here(begun: StudyFolder) -> Path:
    """The working directory, with study `tiny` in it."""
    return begun.root.parent.parent


def test_delete_asks_and_without_a_terminal_wants_to_be_told(here: Path) -> None:
    storage = here / "samtune_studies"
    asked = samtune_here("delete", "tiny", cwd=here)
    assert asked.returncode == 2
    assert "add --yes" in asked.stderr
    unknown = samtune_here("delete", "tiny", "tinny", "--yes", cwd=here)
    assert unknown.returncode == 2
    assert "No study named 'tinny'. Did you mean 'tiny'?" in unknown.stderr
    assert study_names(storage) == ["tiny"]  # not one where another is misspelled
    done = samtune_here("delete", "tiny", "tiny", "--yes", cwd=here)
    assert (done.returncode, done.stdout.count("tiny: deleted, ")) == (0, 1)
    assert os.listdir(storage) == []


def test_an_archived_study_is_out_of_sight_and_back(here: Path) -> None:
    assert samtune_here("archive", "tiny", cwd=here).returncode == 0
    assert "tiny" not in samtune_here("list", cwd=here).stdout
    (row,) = json.loads(samtune_here("list", "--archived", "--json", cwd=here).stdout)
    assert row["name"] == "tiny"
    assert "t0001" in samtune_here("show", "tiny", cwd=here).stdout
    refused = samtune_here("resume", "tiny", cwd=here)
    assert refused.returncode == 2
    assert "bring it back with `samtune unarchive tiny" in refused.stderr
    assert samtune_here("unarchive", "tiny", cwd=here).returncode == 0
    assert "tiny" in samtune_here("list", cwd=here).stdout


def test_a_renamed_study_is_found_by_its_new_name_alone(here: Path) -> None:
    renamed = samtune_here("rename", "tiny", "other", cwd=here)
    assert (renamed.returncode, renamed.stdout) == (0, "Study tiny is other now.\n")
    assert "study other: " in samtune_here("show", "other", cwd=here).stdout
    gone = samtune_here("show", "tiny", cwd=here)
    assert gone.returncode == 2
    again = samtune_here("rename", "other", "other", cwd=here)
    assert again.returncode == 2
    assert "exists: take another name" in again.stderr


def test_gc_says_what_it_frees_and_only_looks_where_asked(
    study_folder: StudyFolder, study_config: Make
) -> None:
    storage = study_folder.root.parent
    for number, value in enumerate([0.1, 0.7, 0.9]):
        write_trial(study_folder, study_config(), number, [value])
    arguments = ("gc", "tiny", "--storage", ".", "--keep", "1")
    looked = samtune_here(*arguments, "--dry-run", cwd=storage)
    # Three states of 13 bytes and weights of 15.
    told = "54 B\n  3 training states\n  the weights of 1 trial: t0001\n"
    assert (looked.returncode, looked.stdout) == (0, f"tiny: would free {told}")
    done = samtune_here(*arguments, cwd=storage)
    assert (done.returncode, done.stdout) == (0, f"tiny: freed {told}")
    again = samtune_here(*arguments, cwd=storage)
    assert again.stdout == "Study tiny holds nothing that it need not keep.\n"
    shown = samtune_here("show", "tiny", "t0001", "--storage", ".", cwd=storage)
    said = "its weights were not kept: it was number 2 of 2, and study.keep_weights is 1\n"
    assert said in shown.stdout


def test_who_does_not_run_cannot_be_stopped(here: Path) -> None:
    ended = samtune_here("stop", "tiny", cwd=here)
    assert ended.returncode == 2
    assert "study 'tiny' is not running" in ended.stderr


def test_the_machine_is_looked_at(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here / 'none' / 'mlflow.db'}")
    looked = samtune_here("doctor", "--json", cwd=here)
    told = json.loads(looked.stdout)
    states = {check["what"]: check["state"] for check in told["checks"]}
    assert (looked.returncode, told["usable"]) == (1, False)
    assert [what for what, state in states.items() if state == "wrong"] == ["cluster"]
    assert states["MLflow"] == "note"
    assert {"torch", "ray", "optuna", "mlflow", "CPUs", "memory", "disk"} <= states.keys()
    (cluster,) = (check for check in told["checks"] if check["what"] == "cluster")
    assert "unset RAY_ADDRESS" in cluster["remedy"]


def test_a_shell_completes_names_of_studies_and_trials(here: Path) -> None:
    def completed(line: str) -> set[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        done = subprocess.run(
            [sys.executable, "-c", "from samtune.cli import app; app(prog_name='samtune')"],
            env={**os.environ, **words, "_SAMTUNE_COMPLETE": "complete_bash"},
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
        )
        return set(done.stdout.split())

    assert completed("samtune show ti") == {"tiny"}
    assert completed("samtune show tiny t") == {"t0000", "t0001"}
    assert completed("samtune sy") == {"sync"}
