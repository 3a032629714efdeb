"""What downloaded data sets share: the validation split, clean labels, errors in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from samtune.data import DataSplits, Images
from samtune.data.augmentation import Augmentation
from samtune.data.downloads import classification_splits, open_files
from samtune.errors import SamtuneError

AUGMENTATION = Augmentation(crop_padding=1)


def numbered(count: int) -> Images:
    """One pixel each, whose three bytes are the image's number."""
    number = torch.arange(count)
    digits = torch.stack([number % 256, number // 256, number % 10], 1)
    return Images(digits.to(torch.uint8).view(count, 1, 1, 3), number % 10)


def numbers(split: Images) -> list[int]:
    low, high, _ = split.images.view(-1, 3).long().unbind(1)
    return (low + 256 * high).tolist()


def splits(count: int, label_noise: float = 0.0, split_seed: int = 0, opened: Any = None):
    def read(train: bool) -> Images:
        if opened is not None:
            opened.append(train)
        return numbered(count if train else 30)

    return classification_splits(
        read,
        classes=[str(i) for i in range(10)],
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        augmentation=AUGMENTATION,
        label_noise=label_noise,
        split_seed=split_seed,
    )


@pytest.mark.parametrize(("count", "val"), [(6000, 5000), (5001, 5000), (5000, 500), (100, 10)])
def test_5000_images_validate_or_a_tenth_where_there_are_no_more(count: int, val: int) -> None:
    data = splits(count)
    assert len(data.val) == val
    assert sorted(numbers(data.train) + numbers(data.val)) == list(range(count))


def test_the_validation_images_are_drawn_from_the_split_seed() -> None:
    first = numbers(splits(6000).val)
    assert numbers(splits(6000).val) == first
    assert numbers(splits(6000, label_noise=0.4).val) == first
    assert numbers(splits(6000, split_seed=1).val) != first
    assert torch.bincount(splits(6000).val.targets).tolist() == [500] * 10


def test_only_training_labels_are_wrong() -> None:
    data = splits(6000, label_noise=0.4)
    clean = torch.tensor([n % 10 for n in numbers(data.train)])
    assert int((data.train.targets != clean).sum()) == 400
    for split in (data.val, data.open_test()):
        assert split.targets.tolist() == [n % 10 for n in numbers(split)]


def test_the_test_files_are_read_when_they_are_opened_and_not_before() -> None:
    opened: list[bool] = []
    data = splits(100, opened=opened)
    data.train_batches(10, torch.device("cpu"))
    assert opened == [True]
    assert len(data.open_test()) == 30
    assert opened == [True, False]


def test_what_was_said_of_the_data_set_is_kept() -> None:
    data = splits(100)
    assert isinstance(data, DataSplits)
    assert (data.task, data.num_classes) == ("classification", 10)
    assert (data.mean, data.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert data.augmentation == AUGMENTATION


def test_files_are_opened_in_a_folder_that_is_made_with_the_given_arguments(
    tmp_path: Path,
) -> None:
    def source(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    root = tmp_path / "not" / "there"
    found = open_files(source, "mine", root, download=True, train=False)
    assert found == ((str(root),), {"download": True, "train": False})
    assert root.is_dir()


@pytest.mark.parametrize("download", [False, True])
def test_an_error_is_one_sentence_that_names_data_set_folder_and_reason(
    tmp_path: Path, download: bool
) -> None:
    def source(root: str, download: bool) -> None:
        raise RuntimeError("two\n  lines")

    with pytest.raises(SamtuneError) as error:
        open_files(source, "mine", tmp_path, download=download)
    wish = "" if download else " or set dataset.download to true"
    assert str(error.value) == (
        f"dataset mine: its files are not in {tmp_path}, or are damaged (two lines). "
        f"Put them there, point dataset.root at them{wish}."
    )


def test_an_error_without_words_is_named_by_its_kind(tmp_path: Path) -> None:
    def source(root: str, download: bool) -> None:
        raise EOFError

    with pytest.raises(SamtuneError, match=r"damaged \(EOFError\)"):
        open_files(source, "mine", tmp_path, download=False)


def test_a_root_that_is_a_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(SamtuneError, match=f"not in {tmp_path / 'data'}, or are damaged"):
        open_files(lambda *_, **__: None, "mine", tmp_path / "data", download=False)
