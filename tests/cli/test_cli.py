"""The command line without Ray: what each verb prints, and how each mistake ends."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from samtune.cli import main
from tests.conftest import TINY


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


def _samtune(*arguments: str, cwd: Path) -> Ended:
    """The command in this process, which has torch imported already."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["samtune", *arguments])
        try:
            main()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study file and one trained run."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "tiny.yaml").write_text(TINY)
    trained = _samtune("train", "tiny.yaml", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    assert "epoch 3/3 train_loss" in trained.stdout
    return folder


def test_help_names_every_verb(workplace: Path) -> None:
    shown = _samtune("--help", cwd=workplace).stdout
    for verb in ("check", "run", "resume", "train", "list", "show", "logs", "export", "sync", "ui"):
        assert f" {verb} " in shown


def test_check_previews_the_study(workplace: Path) -> None:
    checked = _samtune("check", "tiny.yaml", cwd=workplace)
    assert checked.returncode == 0, checked.stderr
    for expected in (
        "study tiny: val_accuracy (max)",
        "digits, 8x8x1, 10 classes: 1,200 to train, 297 to validate",
        "sam.rho: 0.01 to 1, log scale",
        "77.8k parameters",
        "4 reach epoch 1, 2 reach epoch 2, 1 reach epoch 3",
        "tiny.yaml is fine.",
    ):
        assert expected in checked.stdout
    assert not (workplace / "samtune_studies/tiny").exists()


def test_training_again_goes_on_where_it_was(workplace: Path) -> None:
    again = _samtune("train", "tiny.yaml", cwd=workplace)
    assert again.stdout.count("(from before)") == 3
    other = _samtune("train", "tiny.yaml", "sam.rho=0.5", cwd=workplace)
    assert other.returncode == 2
    assert "holds a run with other settings" in other.stderr


def test_list_and_show_agree_and_parse(workplace: Path) -> None:
    (listed,) = json.loads(_samtune("list", "--json", cwd=workplace).stdout)
    shown = json.loads(_samtune("show", "tiny-train", "--json", cwd=workplace).stdout)
    trial = json.loads(_samtune("show", "tiny-train", "t0001", "--json", cwd=workplace).stdout)
    assert listed["name"] == shown["name"] == "tiny-train"
    assert listed["state"] == "finished"
    assert listed["best_value"] == shown["trials"][0]["value"] == trial["value"]
    assert [e["epoch"] for e in trial["epochs"]] == [1, 2, 3]
    plain = _samtune("show", "tiny-train", "t0001", cwd=workplace).stdout
    assert "t0001 finished" in plain
    assert "tiny-train" in _samtune("list", cwd=workplace).stdout


BROKEN = ["[]", '"text"', "{}", "3", "null", "", "[" * 100_000, '{"session": "x"}']


@pytest.mark.parametrize("content", BROKEN, ids=lambda c: c[:8])
@pytest.mark.parametrize("file", ["manifest.json", "trials/t0001/trial.json", "study.yaml"])
def test_a_damaged_study_is_a_sentence_and_hides_no_other(
    workplace: Path, tmp_path: Path, file: str, content: str
) -> None:
    for name in ("good", "bad"):
        shutil.copytree(workplace / "samtune_studies/tiny-train", tmp_path / name)
    (tmp_path / "bad" / file).write_text(content)
    bad, good = json.loads(_samtune("list", "--json", "--storage", ".", cwd=tmp_path).stdout)
    assert (bad["name"], bad["state"], good["state"]) == ("bad", "damaged", "finished")
    assert "damaged" in _samtune("list", "--storage", ".", cwd=tmp_path).stdout
    for verb in (
        *(["show", "bad"], ["show", "bad", "t0001"], ["logs", "bad", "t0001"], ["resume", "bad"]),
        ["export", "bad", "-o", "best.pt"],
    ):
        ended = _samtune(*verb, "--storage", ".", cwd=tmp_path)
        assert ended.returncode == 2
        assert Path(file).name in ended.stderr


@pytest.mark.parametrize("content", [*BROKEN[:-1], '{"state": "done", "epoch": 3}'])
def test_a_damaged_outcome_is_a_sentence(workplace: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(workplace / "samtune_studies/tiny-train", tmp_path / "bad")
    (tmp_path / "bad/trials/t0001/outcome.json").write_text(content)
    ended = _samtune("show", "bad", "--storage", ".", cwd=tmp_path)
    assert ended.returncode == 2
    assert "outcome.json is damaged" in ended.stderr


def test_resuming_without_the_trials_is_refused(workplace: Path, tmp_path: Path) -> None:
    shutil.copytree(workplace / "samtune_studies/tiny-train", tmp_path / "bad")
    shutil.rmtree(tmp_path / "bad/trials")
    for verb in ("resume", "show"):
        ended = _samtune(verb, "bad", "--storage", ".", cwd=tmp_path)
        assert ended.returncode == 2
        assert "trials is gone" in ended.stderr
    assert not (tmp_path / "bad/trials").exists()


def test_export_says_what_was_measured(workplace: Path) -> None:
    done = _samtune("export", "tiny-train", "-o", "model.pt", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert "as recorded" in done.stdout
    assert (workplace / "model.pt").exists()


def test_the_registries_are_shown_and_parse(workplace: Path) -> None:
    models = {m["name"]: m for m in json.loads(_samtune("models", "--json", cwd=workplace).stdout)}
    names = [p["name"] for p in models["wide_resnet"]["parameters"]]
    assert names == ["depth", "width_factor", "dropout"]
    assert "digits" in _samtune("datasets", cwd=workplace).stdout
    one = _samtune("models", "wide_resnet", cwd=workplace).stdout
    assert "number of convolutions and linear layers: 10, 16, 22, 28" in one


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "absent.yaml"], "absent.yaml cannot be read: No such file"),
        (["run", "tiny.yaml", "sam.rhoo=1"], "no such setting. Did you mean 'rho'"),
        (["run", "tiny.yaml", "nonsense"], "'nonsense' is no override: write KEY=VALUE"),
        (["run", "tiny.yaml", "--time-budget", "soon"], "'soon' is no duration"),
        (["run", "tiny.yaml", "--name", "../up"], "name: must be 1 to 64"),
        (["run", "tiny.yaml", "--storage", "/proc/x"], "storage /proc/x cannot be written"),
        (["show", "tiny-trian"], "Did you mean 'tiny-train'"),
        (["show", "tiny-train", "t0009"], "No trial named 't0009'"),
        (["resume", "tiny-train", "--trials", "20"], "--trials 20: write how many to add"),
        (["export", "tiny-train", "-o", "model"], "which format?"),
        (["export", "tiny-train", "-o", "nowhere/model.pt"], "in an existing folder"),
        (["list", "--storage", "tiny.yaml"], "storage tiny.yaml is no folder"),
        (["models", "wide_resent"], "Did you mean 'wide_resnet'"),
        (
            ["check", "tiny.yaml", "dataset={name: cifar10, download: false}"],
            "dataset.root at them",
        ),
    ],
)
def test_a_users_mistake_is_a_sentence_and_exit_code_2(
    workplace: Path, arguments: list[str], message: str
) -> None:
    ended = _samtune(*arguments, cwd=workplace)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
