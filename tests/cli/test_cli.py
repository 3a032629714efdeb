"""The command line without Ray: what each verb prints, and how each mistake ends."""

from __future__ import annotations

import io
import json
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from samtune.cli import app
from samtune.cli.summary import print_preview
from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.config.study_file import read_study
from samtune.errors import SamtuneError
from samtune.preflight import free_space, preview
from samtune.study import StudyFolder
from samtune.study.trial_folder import Outcome
from tests.commands import samtune_here
from tests.conftest import TINY, Processor


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study file and one trained run."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "tiny.yaml").write_text(TINY)
    trained = samtune_here("train", "tiny.yaml", cwd=folder)
    assert trained.returncode == 0, trained.stderr
    assert "epoch 3/3 train_loss" in trained.stdout
    return folder


def test_help_names_every_verb(workplace: Path) -> None:
    shown = samtune_here("--help", cwd=workplace).stdout
    verbs = [command.name for command in app.registered_commands]
    assert len(verbs) == len(set(verbs)) > 10
    for verb in verbs:
        assert f" {verb} " in shown


def test_check_previews_the_study(workplace: Path) -> None:
    checked = samtune_here("check", "tiny.yaml", cwd=workplace)
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
    again = samtune_here("train", "tiny.yaml", cwd=workplace)
    assert again.stdout.count("(from before)") == 3
    other = samtune_here("train", "tiny.yaml", "sam.rho=0.5", cwd=workplace)
    assert other.returncode == 2
    assert "holds a run with other settings" in other.stderr


def test_list_and_show_agree_and_parse(workplace: Path) -> None:
    (listed,) = json.loads(samtune_here("list", "--json", cwd=workplace).stdout)
    shown = json.loads(samtune_here("show", "tiny-train", "--json", cwd=workplace).stdout)
    trial = json.loads(samtune_here("show", "tiny-train", "t0001", "--json", cwd=workplace).stdout)
    assert listed["name"] == shown["name"] == "tiny-train"
    assert listed["state"] == "finished"
    assert listed["best_score"] == shown["trials"][0]["score"] == trial["score"]
    assert [e["epoch"] for e in trial["epochs"]] == [1, 2, 3]
    plain = samtune_here("show", "tiny-train", "t0001", cwd=workplace).stdout
    assert "t0001 finished" in plain
    assert "tiny-train" in samtune_here("list", cwd=workplace).stdout


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_what_auto_comes_to_is_said_before_a_run_and_after_it(
    tmp_path: Path, processor: Processor, precision: str
) -> None:
    wide = "{name: wide_resnet, depth: 10, width_factor: 1}"  # slow where bf16 is emulated
    text = TINY.replace(wide, "{name: resnet, blocks: [1], channels: [4]}")
    (tmp_path / "tiny.yaml").write_text(text.replace("epochs: 3", "epochs: 1"))
    processor.is_fast_at(precision)
    said = f"precision auto ({precision})"
    checked = samtune_here("check", "tiny.yaml", cwd=tmp_path).stdout
    assert f"precision  auto ({precision}) on this machine\n" in checked
    trained = samtune_here("train", "tiny.yaml", cwd=tmp_path).stdout
    assert trained.startswith(f"{said}\nepoch 1/1 ")
    assert f"; {said}\n" in samtune_here("show", "tiny-train", cwd=tmp_path).stdout
    assert said in samtune_here("show", "tiny-train", "t0001", cwd=tmp_path).stdout
    trial = json.loads(samtune_here("show", "tiny-train", "t0001", "--json", cwd=tmp_path).stdout)
    assert trial["precision"] == f"auto ({precision})"

    named = samtune_here("check", "tiny.yaml", "training.precision=fp16", cwd=tmp_path).stdout
    assert "precision  fp16\n" in named


DEEP = "[" * 10_000
MORE = [
    pytest.param(content, marks=pytest.mark.slow, id=content[:8])
    for content in ('"text"', "{}", "3", "null")
]
BROKEN = ["[]", "", pytest.param(DEEP, id="deep"), *MORE]


@pytest.mark.parametrize("content", [*BROKEN, '{"session": "x"}'])
@pytest.mark.parametrize("file", ["manifest.json", "study.yaml"])
def test_a_damaged_study_is_a_sentence_and_hides_no_other(
    workplace: Path, tmp_path: Path, file: str, content: str
) -> None:
    for name in ("good", "bad"):
        shutil.copytree(workplace / "samtune_studies/tiny-train", tmp_path / name)
    (tmp_path / "bad" / file).write_text(content)
    bad, good = json.loads(samtune_here("list", "--json", "--storage", ".", cwd=tmp_path).stdout)
    assert (bad["name"], bad["state"], good["state"]) == ("bad", "damaged", "finished")
    assert "damaged" in samtune_here("list", "--storage", ".", cwd=tmp_path).stdout
    for verb in (
        *(["show", "bad"], ["show", "bad", "t0001"], ["logs", "bad", "t0001"], ["resume", "bad"]),
        ["export", "bad", "-o", "best.pt"],
    ):
        ended = samtune_here(*verb, "--storage", ".", cwd=tmp_path)
        assert ended.returncode == 2
        assert Path(file).name in ended.stderr
    examined = samtune_here("doctor", "bad", "--storage", ".", cwd=tmp_path)
    assert examined.returncode == 1
    assert Path(file).name in examined.stdout


@pytest.mark.parametrize("content", [*BROKEN, '{"session": "x"}', None])
def test_a_damaged_trial_is_set_aside_in_a_line(
    workplace: Path, tmp_path: Path, content: str | None
) -> None:
    shutil.copytree(workplace / "samtune_studies/tiny-train", tmp_path / "bad")
    path = tmp_path / "bad/trials/t0001/trial.json"
    path.unlink() if content is None else path.write_text(content)
    for verb in ("list", "show"):
        ended = samtune_here(verb, *["bad"] * (verb == "show"), "--storage", ".", cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        assert "trials/t0001/trial.json is" in ended.stdout
        assert "set aside until it is restored from a backup" in ended.stdout
    shown = json.loads(samtune_here("show", "bad", "--json", "--storage", ".", cwd=tmp_path).stdout)
    assert shown["trials"] == []
    assert "trials/t0001/trial.json" in shown["damage"][0]
    one = samtune_here("show", "bad", "t0001", "--storage", ".", cwd=tmp_path)
    assert one.returncode == 2
    assert "trials/t0001/trial.json is" in one.stderr
    assert samtune_here("doctor", "bad", "--storage", ".", cwd=tmp_path).returncode == 1


@pytest.mark.parametrize("content", [*BROKEN, '{"state": "done", "epoch": 3}'])
def test_a_damaged_outcome_is_said_and_written_anew(
    workplace: Path, tmp_path: Path, content: str
) -> None:
    shutil.copytree(workplace / "samtune_studies/tiny-train", tmp_path / "tiny-train")
    path = tmp_path / "tiny-train/trials/t0001/outcome.json"
    path.write_text(content)
    ended = samtune_here("show", "tiny-train", "--storage", ".", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "outcome.json is damaged" in ended.stdout
    shutil.copy(workplace / "tiny.yaml", tmp_path)
    again = samtune_here("train", "tiny.yaml", "--storage", ".", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("(from before)") == 3
    shown = json.loads(
        samtune_here("show", "tiny-train", "--json", "--storage", ".", cwd=tmp_path).stdout
    )
    assert shown["state"] == "finished"
    assert shown["damage"] == []
    assert path.with_name("outcome.json.damaged-1").read_text() == content


def test_a_damaged_journal_is_named_and_its_epochs_trained_again(
    workplace: Path, tmp_path: Path
) -> None:
    shutil.copytree(workplace / "samtune_studies/tiny-train", tmp_path / "tiny-train")
    path = tmp_path / "tiny-train/trials/t0001/epochs.jsonl"
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*whole[:2], *whole[3:]]))  # epoch 2's line is gone
    for verb in (["show", "tiny-train"], ["show", "tiny-train", "t0001"], ["list"]):
        ended = samtune_here(*verb, "--storage", ".", cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        assert "trials/t0001/epochs.jsonl is damaged: line 3 does not follow" in ended.stdout
        assert "it counts up to epoch 1; `samtune resume` trains later ones again" in ended.stdout
    shutil.copy(workplace / "tiny.yaml", tmp_path)
    again = samtune_here("train", "tiny.yaml", "--storage", ".", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("(from before)") == 1
    one = samtune_here("show", "tiny-train", "t0001", "--json", "--storage", ".", cwd=tmp_path)
    before = samtune_here("show", "tiny-train", "t0001", "--json", cwd=workplace)
    assert json.loads(one.stdout) == json.loads(before.stdout)
    assert samtune_here("doctor", "tiny-train", "--storage", ".", cwd=tmp_path).returncode == 0


def test_a_whole_study_is_said_to_be_whole(workplace: Path) -> None:
    examined = samtune_here("doctor", "tiny-train", cwd=workplace)
    assert (examined.returncode, examined.stdout) == (0, "Study tiny-train is whole.\n")
    parsed = json.loads(samtune_here("doctor", "tiny-train", "--json", cwd=workplace).stdout)
    assert parsed == {"study": "tiny-train", "whole": True, "findings": []}
    assert samtune_here("doctor", "tiny-trian", cwd=workplace).returncode == 2


@pytest.mark.parametrize(
    ("pattern", "content", "found"),
    [
        ("best-*", b"", "(the best weights, epoch "),
        ("best-*", None, "is gone; restore it from a backup"),
        ("outcome.json", None, "(the training state after epoch 3) is gone"),
        ("outcome.json", b'{"state":"finished","epoch":4,"reason":"","session":1}', "has 3"),
        ("trial.json", b"", "trial.json is damaged"),
        ("epochs.jsonl", b"", "outcome.json says finished in epoch 3, but the journal has 0"),
        (".tmp-0", b"0123", "note   trials hold 4 B that ended trials need not keep"),
        ("state-00009-a1.pt", b"", "note   trials hold 0 B that ended trials need not keep"),
    ],
)
def test_doctor_finds_what_is_damaged(
    workplace: Path, tmp_path: Path, pattern: str, content: bytes | None, found: str
) -> None:
    shutil.copytree(workplace / "samtune_studies/tiny-train", tmp_path / "bad")
    trial = tmp_path / "bad/trials/t0001"
    for path in list(trial.glob(pattern)) or [trial / pattern]:
        path.unlink() if content is None else path.write_bytes(content)
    examined = samtune_here("doctor", "bad", "--storage", ".", cwd=tmp_path)
    assert found in examined.stdout
    parsed = json.loads(
        samtune_here("doctor", "bad", "--json", "--storage", ".", cwd=tmp_path).stdout
    )
    assert examined.returncode == (not parsed["whole"])
    assert parsed["whole"] == (found == "" or found.startswith("note"))


def test_damaged_weights_are_a_sentence(workplace: Path, tmp_path: Path) -> None:
    shutil.copytree(workplace / "samtune_studies/tiny-train", tmp_path / "bad")
    (best,) = (tmp_path / "bad/trials/t0001").glob("best-*")
    before = best.read_bytes()
    for content in (b"", before[:-1], before[:-1] + bytes([before[-1] ^ 1])):
        best.write_bytes(content)
        for state in (tmp_path / "bad/trials/t0001").glob("state-*"):
            state.unlink()
        ended = samtune_here("export", "bad", "-o", "best.pt", "--storage", ".", cwd=tmp_path)
        assert ended.returncode == 2
        assert f"{best.name}, the weights of trial t0001 after epoch" in ended.stderr
        assert "are damaged or gone" in ended.stderr
        assert not (tmp_path / "best.pt").exists()


def test_an_address_that_is_none_is_a_sentence(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://[me:secret")
    for verb in (["ui"], ["sync", "tiny-train"]):
        ended = samtune_here(*verb, cwd=workplace)
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
        ended = samtune_here(verb, "bad", "--storage", ".", cwd=tmp_path)
        assert ended.returncode == 2
        assert "trials is gone" in ended.stderr
    assert not (tmp_path / "bad/trials").exists()


def test_export_says_what_was_measured(workplace: Path) -> None:
    done = samtune_here("export", "tiny-train", "-o", "model.pt", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert "as recorded" in done.stdout
    assert (workplace / "model.pt").exists()


def test_an_exported_model_is_measured_and_names_images(workplace: Path) -> None:
    assert samtune_here("export", "tiny-train", "-o", "own.safetensors", cwd=workplace).stderr == ""
    shown = samtune_here("evaluate", "own.safetensors", cwd=workplace)
    assert "wide_resnet, tiny-train t0001; val of digits, 297 images" in shown.stdout, shown.stderr
    told = samtune_here("evaluate", "own.safetensors", "--json", cwd=workplace)
    measured = json.loads(told.stdout)
    assert (measured["where"], measured["images"], measured["trained_on"]) == ("val", 297, False)
    recorded = measured["recorded"]
    assert measured["metrics"] == pytest.approx(recorded, abs=0.01)  # recorded in bf16, perhaps
    train = samtune_here("evaluate", "own.safetensors", "--split", "train", cwd=workplace)
    assert "The model was trained on these images" in train.stdout

    (workplace / "own/7").mkdir(parents=True)
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(workplace / "own/7/grey.png")
    named = samtune_here("predict", "own.safetensors", "own/7/grey.png", cwd=workplace)
    assert "images are resized to 8x8 grey" in named.stdout, named.stderr
    answer = samtune_here("predict", "own.safetensors", "own/7/grey.png", "--json", cwd=workplace)
    (one,) = json.loads(answer.stdout)
    assert sum(one["probabilities"].values()) == pytest.approx(1)
    assert f"own/7/grey.png: {one['class']} 0." in named.stdout
    folder = samtune_here("evaluate", "own.safetensors", "--images", "own", cwd=workplace)
    assert f"accuracy       {float(one['class'] == '7'):.4f}" in folder.stdout


def test_the_registries_are_shown_and_parse(workplace: Path) -> None:
    models = {
        m["name"]: m for m in json.loads(samtune_here("models", "--json", cwd=workplace).stdout)
    }
    names = [p["name"] for p in models["wide_resnet"]["parameters"]]
    assert names == ["depth", "width_factor", "dropout"]
    assert "digits" in samtune_here("datasets", cwd=workplace).stdout
    one = samtune_here("models", "wide_resnet", cwd=workplace).stdout
    assert "number of convolutions and linear layers: 10, 16, 22, 28" in one


def test_training_once_needs_no_scheduler(workplace: Path) -> None:
    name = ("--name", "short")
    overrides = ("training.epochs=1", "study.scheduler.grace_epochs=2")
    trained = samtune_here("train", "tiny.yaml", *overrides, *name, cwd=workplace)
    assert trained.returncode == 0, trained.stderr


def test_a_name_of_digits_is_a_name(workplace: Path) -> None:
    shown = samtune_here("run", "tiny.yaml", "--name", "2024", "--dry-run", cwd=workplace)
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
    ended = samtune_here(*words, "--plugin", module, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert module in ended.stdout or "is rho away" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "absent.yaml"], "absent.yaml cannot be read: No such file"),
        (["run", "tiny.yaml", "sam.rhoo=1"], "no such setting. Did you mean 'rho'"),
        (["run", "tiny.yaml", "nonsense"], "'nonsense' is no override: write KEY=VALUE"),
        (["run", "tiny.yaml", "--time-budget", "soon"], "'soon' is no duration"),
        (["run", "tiny.yaml", "--wait-for-resources", "0m", "--dry-run"], "'0m' is no duration"),
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
        (["export", "tiny-train", "-o", "m", "--format", "onx"], "which format is onx?"),
        (["evaluate", "no.onnx"], "no.onnx cannot be read: No such file"),
        (["evaluate", "tiny.yaml"], "which format is tiny.yaml?"),
        (["evaluate", "x.pt", "--images", ".", "--split", "train"], "leave out --split"),
        (["predict", "no.pt", "tiny.yaml"], "no.pt cannot be read: No such file"),
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
    ended = samtune_here(*arguments, cwd=workplace)
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
    sound = samtune_here("run", "tiny.yaml", "--dry-run", cwd=workplace)
    assert "self-check passed: all 5 promises of SAM hold on wide_resnet" in sound.stdout
    (workplace / "counting.py").write_text(MOVING_STATISTICS)
    text = "plugins: [counting]\n" + TINY.replace(
        "{name: wide_resnet, depth: 10, width_factor: 1}", "{name: counting}"
    )
    (workplace / "counting.yaml").write_text(text)
    moving = samtune_here("run", "counting.yaml", "--dry-run", cwd=workplace)
    assert moving.returncode == 0, moving.stderr
    said = " ".join(moving.stdout.split())
    assert "on counting this does not hold: the second pass moves no statistics" in said
    assert "self-check passed" not in said


def test_a_done_study_without_a_usable_trial_exits_1_and_says_how_to_go_on(
    tmp_path: Path, study_config: Callable[..., StudyConfig]
) -> None:
    config = study_config(("trials: 4", "trials: 1, baseline: false"))
    folder = StudyFolder.create(tmp_path / "samtune_studies", config)
    trial = folder.trial("t0001")
    trial.hand_out(record_of(config, "t0001", {"sam.rho": 0.1, "optimizer.lr": 0.1}), 1)
    trial.end(Outcome("failed", 1, "ValueError: this model cannot"))
    resumed = samtune_here("resume", "tiny", cwd=tmp_path)
    assert resumed.returncode == 1
    assert "no trial of study 'tiny' can be used: 1 failed" in resumed.stderr
    assert "ValueError: this model cannot" in resumed.stderr
    assert "samtune resume tiny --retry-failed" in resumed.stderr
