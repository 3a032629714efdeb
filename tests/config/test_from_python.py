"""Studies that a Python program gives: the same checks as of a file, and code of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samtune.config.from_python import study_from_python
from samtune.config.study_file import read_study
from samtune.errors import SamtuneError, StudyFileError
from samtune.registry import MODELS

STUDY: dict[str, Any] = {
    "name": "given",
    "trial": {
        "model": {"name": "wide_resnet", "depth": 10, "width_factor": 1},
        "dataset": {"name": "digits"},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "training": {"epochs": 2},
    },
    "search_space": {"sam.rho": {"float": [0.01, 1.0], "log": True}},
    "study": {"trials": 2},
}


CELL = """
from torch import nn

class Net(nn.Sequential):
    def __init__(self, *, num_classes: int, width: int = {width}):
        super().__init__(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, num_classes))
"""


def _net(width: int = 4) -> Any:
    """A class as a notebook's cell defines it."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(CELL.format(width=width), "<a cell>", "exec"), names)
    return names["Net"]


@pytest.fixture(autouse=True)
def _models_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))


def _with(section: str, **settings: Any) -> dict[str, Any]:
    trial = STUDY["trial"]
    return {**STUDY, "trial": {**trial, section: {**trial[section], **settings}}}


def test_a_mapping_is_the_study_that_the_same_file_is(tmp_path: Path) -> None:
    import json

    (tmp_path / "given.yaml").write_text(json.dumps(STUDY))
    config, folder = study_from_python(STUDY)
    assert config == read_study(tmp_path / "given.yaml")
    assert folder == Path.cwd()
    assert study_from_python(tmp_path / "given.yaml") == (config, tmp_path)
    assert study_from_python(config)[0] == config


def test_its_mistakes_are_all_told_in_the_same_sentences() -> None:
    wrong = {**_with("training", batchsize=3), "search_space": {"sam.rho": {"float": [1, 0.5]}}}
    with pytest.raises(StudyFileError) as error:
        study_from_python(wrong)
    assert str(error.value).startswith("the study has 2 problems:")
    assert "trial.training.batchsize: no such setting. Did you mean 'batch_size'?" in str(
        error.value
    )
    with pytest.raises(StudyFileError, match=r"trial\.model\.depth: must be what .* got ndarray"):
        study_from_python(_with("model", depth=np.zeros(3)))
    endless: dict[str, Any] = {}
    endless["trial"] = endless
    with pytest.raises(StudyFileError, match="nested deeper than 20"):
        study_from_python(endless)


def test_numbers_of_numpy_and_paths_are_what_a_file_can_say() -> None:
    given = _with("optimizer", lr=np.float32(0.5))
    given["study"] = {"trials": np.int64(7)}
    config, _ = study_from_python(given)
    assert config.trial.optimizer.params["lr"] == 0.5
    assert config.study.trials == 7
    given["trial"]["dataset"] = {"name": "image_folder", "root": Path("photos")}
    assert study_from_python(given)[0].trial.dataset.params["root"] == str(Path.cwd() / "photos")


def test_overrides_go_over_it_as_on_the_command_line() -> None:
    config, _ = study_from_python(STUDY, overrides=["training.epochs=9", "study.trials=1"])
    assert (config.trial.training.epochs, config.study.trials) == (9, 1)
    with pytest.raises(SamtuneError, match="would change no trial"):
        study_from_python(STUDY, overrides=["sam.rho=0.1"])


def test_a_class_is_taken_as_the_model_under_a_name_that_tells_its_code() -> None:
    given = _with("model")
    given["trial"]["model"] = {"width": 8}
    config, _ = study_from_python(given, model=_net())
    name = config.trial.model.name
    assert name == MODELS[name].name
    assert name.startswith("Net@")
    assert config.trial.model.params == {"width": 8}
    assert study_from_python(given, model=_net())[0] == config
    assert study_from_python(given, model=_net(5))[0].trial.model.name != name
    with pytest.raises(SamtuneError, match="trial.model.name is 'wide_resnet', and model= is"):
        study_from_python(STUDY, model=_net())


def test_choices_among_registered_classes_and_conditions_on_them_have_the_same_names() -> None:
    MODELS.register("one", "classification")(_net())
    MODELS.register("two", "classification")(_net(5))
    given = _with("model")
    given["trial"]["model"] = {"name": "one"}
    given["search_space"] = {
        "model.name": {"choice": ["one", "two"]},
        "model.width": {"int": [2, 8], "when": {"model.name": "two"}},
    }
    config, _ = study_from_python(given)
    names = [MODELS["one"].name, MODELS["two"].name]
    assert config.model_names == names
    assert config.active("model.width", {"model.name": names[1]})
    assert not config.active("model.width", {"model.name": names[0]})


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module of the user's own, imported already."""
    text = """
from torch import nn
from samtune import register_model

@register_model("imported_net")
class Net(nn.Sequential):
    def __init__(self, *, num_classes: int):
        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))
"""
    (tmp_path / "imported_models.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    __import__("imported_models")
    yield "imported_models"
    del sys.modules["imported_models"]


def test_a_module_that_was_imported_becomes_a_plugin(module: str, tmp_path: Path) -> None:
    given = _with("model")
    given["trial"]["model"] = {"name": "imported_net"}
    config, folder = study_from_python(given)
    assert (config.plugins, folder) == ([module], tmp_path)
    assert config.trial.model.name == "imported_net"

    given["trial"]["model"] = {}
    by_class, _ = study_from_python(given, model=MODELS["imported_net"].factory)
    assert by_class == config
