"""A data set by name: its parameters are checked before anything is read."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from samtune.data import dataset_names, load_dataset, open_dataset
from samtune.data.augmentation import Augmentation
from samtune.errors import SamtuneError, UnknownNameError
from samtune.registry import DATASETS, register_dataset
from tests.data.files import write_image_folder


def test_an_unknown_name_is_met_with_the_nearest_one() -> None:
    with pytest.raises(UnknownNameError, match="No dataset named 'digit'. Did you mean 'digits'?"):
        load_dataset("digit")


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("digits", {"labelnoise": 0.1}, "labelnoise"),
        ("digits", {"label_noise": 1.0}, "less than 1"),
        ("digits", {"split_seed": True}, "valid integer"),
        ("random", {"images": 0}, "greater than 0"),
        ("image_folder", {}, "root"),
        ("image_folder", {"root": "x", "channels": 2}, "1 or 3"),
        ("cifar10", {"padding": "mirror"}, "'zero' or 'reflect'"),
    ],
)
def test_a_wrong_parameter_is_named(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_dataset(name, **params)


def test_a_path_may_be_text_and_a_size_a_list_as_in_a_trials_record(tmp_path: Path) -> None:
    write_image_folder(tmp_path, {"cat": 5, "dog": 5})
    data = load_dataset("image_folder", root=str(tmp_path), image_size=[4, 6])
    assert data.image_size == (4, 6)


def test_a_dataset_of_ones_own_is_loaded_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))  # back as it was, afterwards

    @register_dataset("tens")
    def tens(*, times: int = 1) -> Any:
        return load_dataset("random", images=10 * times, image_size=[4, 4])

    @register_dataset("nothing")
    def nothing() -> Any:
        return None

    assert "tens" in dataset_names()
    assert len(load_dataset("tens", times=3).train) == 30
    with pytest.raises(TypeError, match="'nothing': its factory returned no DataSplits"):
        load_dataset("nothing")


def test_the_guide_names_every_data_set_and_every_augmentation() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    settings = [field.name for field in fields(Augmentation)]
    names = [n for n in dataset_names() if DATASETS[n].factory.__module__.startswith("samtune.")]
    assert [n for n in [*names, *settings] if f"`{n}`" not in guide] == []


@pytest.mark.parametrize(
    ("name", "params", "sentence"),
    [
        ("digits", {"noise": 1}, "dataset digits: 1 validation error .*noise"),
        ("random", {"images": 10**12}, "dataset random: "),
        ("digit", {}, "No dataset named 'digit'. Did you mean 'digits'"),
    ],
)
def test_what_a_study_file_gets_wrong_is_a_sentence(
    name: str, params: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SamtuneError, match=sentence):
        open_dataset(name, params)
