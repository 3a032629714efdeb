"""The command line without Ray: what each verb prints, and how each mistake ends."""

from __future__ import annotations

import contextlib
import io
import json
import resource
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from samtune.cli import main
from samtune.cli.summary import print_preview
from samtune.config.study_file import read_study
from samtune.errors import SamtuneError
from samtune.preflight import free_space, preview
from samtune.training.checkpoint import save_weights
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


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (None, "has no best weights on disk: Error while deserializing header"),
        ({}, "has no best weights on disk: epoch: Field required"),
        ({"epoch": 1, "metrics": {}, "device": "cpu"}, "weights on disk of another model"),
    ],
)
def test_damaged_weights_are_a_sentence(
    workplace: Path, tmp_path: Path, about: dict[str, object] | None, message: str
) -> None:
    shutil.copytree(workplace / "samtune_studies/tiny-train", tmp_path / "bad")
    best = tmp_path / "bad/trials/t0001/best.safetensors"
    if about is None:
        best.write_bytes(b"no weights")
    else:
        save_weights(best, {"x": torch.ones(2)}, about)
    ended = _samtune("export", "bad", "-o", "best.pt", "--storage", ".", cwd=tmp_path)
    assert ended.returncode == 2
    assert message in ended.stderr


def test_an_address_that_is_none_is_a_sentence(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://[me:secret")
    for verb in (["ui"], ["sync", "tiny-train"]):
        ended = _samtune(*verb, cwd=workplace)
        assert ended.returncode == 2
        assert "MLFLOW_TRACKING_URI is no address" in ended.stderr
        assert "secret" not in ended.stderr


def test_a_link_to_nowhere_is_no_storage(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SamtuneError, match="loop cannot be written"):
        free_space(tmp_path / "loop")


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


def test_training_once_needs_no_scheduler(workplace: Path) -> None:
    name = ("--name", "short")
    overrides = ("training.epochs=1", "study.scheduler.grace_epochs=2")
    trained = _samtune("train", "tiny.yaml", *overrides, *name, cwd=workplace)
    assert trained.returncode == 0, trained.stderr


def test_a_name_of_digits_is_a_name(workplace: Path) -> None:
    shown = _samtune("run", "tiny.yaml", "--name", "2024", "--dry-run", cwd=workplace)
    assert "study 2024:" in shown.stdout


def test_a_disk_without_room_is_found_before_anything_starts(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(SamtuneError, match="studies cannot be written: .*too large"):
            free_space(tmp_path / "studies")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_study_larger_than_the_disk_is_noted(workplace: Path) -> None:
    out = io.StringIO()
    found = preview(read_study(workplace / "tiny.yaml"), workplace)
    print_preview(Console(file=out, width=200), replace(found, disk_free_bytes=10))
    assert "the disk is too small for all that" in out.getvalue()


@pytest.mark.parametrize("verb", [["models"], ["datasets"], ["doctor", "--sam", "beside_me"]])
def test_plugins_are_found_in_the_current_folder(
    tmp_path: Path, verb: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    module = f"beside_me_{verb[0]}"
    (tmp_path / f"{module}.py").write_text(
        "from torch import nn\nfrom samtune import register_dataset, register_model\n\n"
        f"@register_dataset({module!r})\n"
        "def data(*, root: str): ...\n\n"
        f"@register_model({module!r})\n"
        "def model(*, num_classes: int, in_channels: int):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * 1024, num_classes))\n"
    )
    words = [module if word == "beside_me" else word for word in verb]
    ended = _samtune(*words, "--plugin", module, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert module in ended.stdout or "is rho away" in ended.stdout


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
        (["resume", "tiny-train", "--trials", "+²"], "write how many to add"),
        (["resume", "tiny-train", "--trials", "+" + "9" * 5000], "write how many to add"),
        (["resume", "tiny-train", "--trials", "+" + "9" * 9], "at most 1,000,000 trials"),
        (["check", "tiny.yaml", "study.trials=1000001"], "less than or equal to 1000000"),
        (
            ["check", "tiny.yaml", "dataset={name: random, image_size: [1000000000, 1000000000]}"],
            "dataset random: Storage size calculation overflowed",
        ),
        (
            ["check", "tiny.yaml", f"dataset={{name: image_folder, root: {'x' * 300}}}"],
            "dataset image_folder: [Errno 36] File name too long",
        ),
        (["resume", "tiny-train", "--trials", "20"], "--trials 20: write how many to add"),
        (["export", "tiny-train", "-o", "model"], "which format is model?"),
        (["export", "tiny-train", "-o", "nowhere/model.pt"], "in an existing folder"),
        (["run", "tiny.yaml", "--dry-run", "--storage", "/proc/x"], "/proc/x cannot be written"),
        (["run", "tiny.yaml", "--dry-run", "--storage", "tiny.yaml/x"], "x cannot be written"),
        (["run", "tiny.yaml", "--dry-run", "--storage", "x" * 300], "File name too long"),
        (["run", "tiny.yaml", "--name", ""], "name: must be 1 to 64 letters"),
        (["train", "tiny.yaml", "--name", ""], "'' is no study name: 1 to 64 letters"),
        (["train", "tiny.yaml", "--name", "x" * 300], "is no study name: 1 to 64 letters"),
        (["train", "tiny.yaml", "--storage", "x" * 300], "File name too long"),
        (["check", "x" * 300], "File name too long"),
        (["list", "--storage", "x" * 300], "File name too long"),
        (["show", "tiny-train", "--storage", "x" * 300], "File name too long"),
        (["show", "x" * 300], "is no study name"),
        (["show", "tiny-train", "x" * 300], "No trial named"),
        (["export", "tiny-train", "-o", "x" * 300 + ".pt"], "File name too long"),
        (["ui", "--port", "99999"], "less than or equal to 65535"),
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


MOVING_STATISTICS = """
import torch
from samtune import register_model

@register_model("counting")
class Counting(torch.nn.Module):
    def __init__(self, *, num_classes, in_channels, image_size):
        super().__init__()
        self.layer = torch.nn.Linear(in_channels * image_size[0] * image_size[1], num_classes)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.layer(x.flatten(1))
"""


def test_run_tries_sam_on_its_own_model_first(workplace: Path) -> None:
    sound = _samtune("run", "tiny.yaml", "--dry-run", cwd=workplace)
    assert "self-check passed: all 5 promises of SAM hold on wide_resnet" in sound.stdout
    (workplace / "counting.py").write_text(MOVING_STATISTICS)
    text = "plugins: [counting]\n" + TINY.replace(
        "{name: wide_resnet, depth: 10, width_factor: 1}", "{name: counting}"
    )
    (workplace / "counting.yaml").write_text(text)
    moving = _samtune("run", "counting.yaml", "--dry-run", cwd=workplace)
    assert moving.returncode == 0, moving.stderr
    said = " ".join(moving.stdout.split())
    assert "on counting this does not hold: the second pass moves no statistics" in said
    assert "self-check passed" not in said
