"""An exported file loads in plain torch or safetensors and gives the recorded metric exactly."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from samtune.config.schema import StudyConfig
from samtune.config.study_file import check_study
from samtune.config.yaml_reader import parse_yaml
from samtune.data import Images, load_dataset
from samtune.errors import SamtuneError
from samtune.export.base import ExportedModel, Format
from samtune.export.best import export
from samtune.export.formats import FORMATS, load_exported
from samtune.study.folder import StudyFolder
from samtune.study.single import train_single
from samtune.study.study import Study
from tests.conftest import TINY
from tests.faults.disk import Disk, kill
from tests.faults.saboteur import Killed

Make = Callable[..., StudyConfig]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return _trained(TINY, tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def by_its_last_epoch(tmp_path_factory: pytest.TempPathFactory) -> Study:
    text = TINY.replace("study: {", "study: {select: last, ")
    return _trained(text, tmp_path_factory.mktemp("studies"))


@pytest.fixture(scope="module")
def in_fp32(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Graphs compute in fp32, so what they give is that of a trial that did, too."""
    text = TINY.replace("epochs: 3", "epochs: 3, precision: fp32")
    return _trained(text, tmp_path_factory.mktemp("studies"))


def _trained(text: str, storage: Path) -> Study:
    list(train_single(check_study(parse_yaml(text, "x"), storage), "single", storage))
    folder = StudyFolder.open(storage, "single")
    return Study(folder, folder.config())


@pytest.mark.parametrize("select", ["study", "by_its_last_epoch"])
@pytest.mark.parametrize("format", ["pt", "safetensors"])
def test_the_file_gives_the_recorded_metric_to_the_last_digit(
    request: pytest.FixtureRequest, tmp_path: Path, format: str, select: str
) -> None:
    study: Study = request.getfixturevalue(select)
    path = tmp_path / f"best.{format}"
    done = export(study, None, path, format)
    trial = study.trials[0]
    assert trial.selected_epoch is not None
    assert done.epoch == trial.selected_epoch.epoch
    assert done.measured == done.recorded == trial.value

    weights = torch.load(path, weights_only=True)["weights"] if format == "pt" else load_file(path)
    own = load_exported(str(path)).network.state_dict()
    assert weights.keys() == own.keys()
    assert all(torch.equal(value, own[name]) for name, value in weights.items())


@pytest.mark.parametrize("format", FORMATS)
def test_images_as_people_have_them_give_the_recorded_accuracy(
    in_fp32: Study, tmp_path: Path, format: str
) -> None:
    path = tmp_path / "best"
    done = export(in_fp32, None, path, format)
    assert done.measured == done.recorded == in_fp32.trials[0].value
    assert done.difference < 1e-5

    model = load_exported(path, format)
    val = load_dataset("digits").val
    assert isinstance(val, Images)
    images = val.images.permute(0, 3, 1, 2)
    for given in (images, images / 255):
        with torch.no_grad():
            right = (model(given).argmax(1) == val.targets).double().mean().item()
        assert right == pytest.approx(done.recorded)

    about = model.about
    assert (about.study, about.trial, about.metric) == ("single", "t0001", "val_accuracy")
    assert about.metrics["val_accuracy"] == done.recorded
    assert about.config == in_fp32.trials[0].config.model_dump(mode="json")
    assert about.classes == list("0123456789")
    assert (about.input.in_words, len(about.input.mean)) == ("8x8 grey", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best"]


def test_a_folder_is_never_replaced(study: Study, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "MLmodel").write_text("mine")
    with pytest.raises(SamtuneError, match="mine exists, and none is replaced"):
        export(study, None, mine, "mlflow", overwrite=True)
    assert (mine / "MLmodel").read_text() == "mine"


def test_an_existing_target_is_replaced_only_when_asked(study: Study, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    path.write_text("mine")
    with pytest.raises(SamtuneError, match="best.pt exists; add --force"):
        export(study, None, path, "pt")
    assert path.read_text() == "mine"
    export(study, None, path, "pt", overwrite=True)
    assert path.stat().st_size > 1000
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]


@pytest.mark.parametrize("kind", ["pipe", "link", "dangling link", "folder"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_only_an_ordinary_file_is_replaced(
    study: Study, tmp_path: Path, kind: str, overwrite: bool
) -> None:
    path, mine = tmp_path / "best.pt", tmp_path / "mine"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link":
            mine.write_text("mine")
            path.symlink_to(mine)
        case "dangling link":
            path.symlink_to(mine)
        case "folder":
            path.mkdir()
    before = path.lstat()
    with pytest.raises(SamtuneError, match="best.pt is no ordinary file, so it is not replaced"):
        export(study, None, path, "pt", overwrite=overwrite)
    assert (path.lstat().st_mode, path.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert not mine.exists() or mine.read_text() == "mine"


def test_a_file_of_unknown_format_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SamtuneError, match="which format is .*best.txt. Name a file that ends in"):
        load_exported(tmp_path / "best.txt")


def _but(format: str, change: Callable[[torch.nn.Module], None]) -> Format:
    """A format whose files come back changed."""
    good = FORMATS[format]

    def read(path: Path) -> ExportedModel:
        model = good.read(path)
        change(model)
        return model

    return replace(good, read=read)


@torch.no_grad()
def _other_weights(model: torch.nn.Module) -> None:
    model.network[8].weight.neg_()


def _no_normalisation(model: torch.nn.Module) -> None:
    model.inner.scale.fill_(1 / 255)
    model.inner.offset.zero_()


def _only_pairs(model: torch.nn.Module) -> None:
    def check(_: torch.nn.Module, args: tuple[torch.Tensor]) -> None:
        if len(args[0]) != 2:
            raise RuntimeError("guard failed")

    model.register_forward_pre_hook(check)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_weights, "gives other outputs than the trial's model, by up to"),
        (_no_normalisation, "gives other outputs than the trial's model, by up to"),
        (_only_pairs, r"does not take 1 images \(0 to 1\): guard failed"),
    ],
)
def test_a_file_that_computes_something_else_is_not_exported(
    study: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[torch.nn.Module], None],
    message: str,
) -> None:
    monkeypatch.setitem(FORMATS, "pt", _but("pt", change))
    with pytest.raises(SamtuneError, match=message):
        export(study, None, tmp_path / "best.pt", "pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("needed", FORMATS["onnx"].needs)
def test_a_missing_library_is_a_sentence(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: str
) -> None:
    monkeypatch.setitem(sys.modules, needed, None)
    with pytest.raises(SamtuneError, match=rf"{needed}: pip install 'samtune\[onnx\]'"):
        export(study, None, tmp_path / "best.onnx", "onnx")
    (tmp_path / "best.onnx").write_bytes(b"")
    with pytest.raises(SamtuneError, match=r"pip install 'samtune\[onnx\]'"):
        load_exported(tmp_path / "best.onnx")


def test_a_trial_without_weights_is_said_so(study_folder: StudyFolder, tmp_path: Path) -> None:
    empty = Study(study_folder, study_folder.config())
    with pytest.raises(SamtuneError, match="nothing to export"):
        export(empty, None, tmp_path / "best.pt", "pt")


@pytest.mark.parametrize("name", ["state_dict.pt", "tensor.pt", "plain.safetensors"])
def test_a_file_of_another_origin_is_refused(tmp_path: Path, name: str) -> None:
    weights = {"weight": torch.ones(2)}
    if name == "plain.safetensors":
        save_file(weights, tmp_path / name)
    else:
        torch.save(weights if name == "state_dict.pt" else torch.ones(2), tmp_path / name)
    with pytest.raises(SamtuneError, match="does not name its model"):
        load_exported(tmp_path / name)


@pytest.mark.parametrize("there_is_one", [False, True])
def test_killed_anywhere_the_target_is_as_it_was_or_whole(
    study: Study, tmp_path: Path, there_is_one: bool
) -> None:
    path = tmp_path / "best.pt"
    with Disk(0, lambda disk: None).watched() as counted:
        export(study, None, path, "pt")
    exported = path.read_bytes()
    seen = set()
    for at in range(1, len(counted.done) + 1):
        path.unlink()
        if there_is_one:
            path.write_text("mine")
        with Disk(at, kill).watched(), contextlib.suppress(Killed):
            export(study, None, path, "pt", overwrite=True)
        seen.add(path.read_bytes() if path.exists() else None)
        export(study, None, path, "pt", overwrite=True)  # what was left is in nobody's way
        assert path.read_bytes() == exported
        assert not (tmp_path / ".best.pt.unchecked").exists()
    assert seen == {b"mine" if there_is_one else None, exported}
