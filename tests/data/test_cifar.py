"""CIFAR from archives and files as Toronto packs them, small ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import torchvision

from samtune.data import load_dataset
from samtune.errors import SamtuneError
from tests.data.files import (
    CIFAR_SOURCES,
    classes,
    labels_by_image,
    pack_cifar,
    pixels,
    write_cifar,
)

NAMES = sorted(CIFAR_SOURCES)
IMAGES = pixels(120, 32, 32, 3)  # 100 of them to train on, 20 to test


def labels(name: str):
    return classes(120, 10 if name == "cifar10" else 100)


@pytest.mark.parametrize("name", NAMES)
def test_every_image_keeps_its_pixels_and_its_label(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(tmp_path, name, IMAGES, labels(name), monkeypatch)
    data = load_dataset(name, root=tmp_path, download=False)
    assert data.num_classes == (10 if name == "cifar10" else 100)
    assert (data.in_channels, data.image_size) == (3, (32, 32))
    expected = {i.tobytes(): int(c) for i, c in zip(IMAGES[:100], labels(name)[:100], strict=True)}
    assert labels_by_image(data) == expected
    test = data.open_test()
    assert test.images.tolist() == IMAGES[100:].tolist()
    assert test.targets.tolist() == labels(name)[100:].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_the_archive_is_unpacked_where_it_lies(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar(tmp_path, name, IMAGES, labels(name), monkeypatch)
    expected = load_dataset(name, root=tmp_path, download=False).train
    pack_cifar(tmp_path / CIFAR_SOURCES[name].base_folder, name, monkeypatch)
    found = load_dataset(name, root=tmp_path).train
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.targets, expected.targets)


def test_the_archive_is_fetched_into_a_new_folder(
    tmp_path: Path, mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = mirror
    write_cifar(folder, "cifar10", IMAGES, labels("cifar10"), monkeypatch)
    archive = pack_cifar(folder / "cifar-10-batches-py", "cifar10", monkeypatch)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", f"{address}/{archive.name}")
    root = tmp_path / "not" / "there" / "yet"
    assert len(load_dataset("cifar10", root=root).train) == 90
    assert (root / "cifar-10-batches-py" / "data_batch_5").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_not_there_are_asked_for(tmp_path: Path, name: str) -> None:
    message = f"dataset {name}: its files are not in {tmp_path}.* set dataset.download to true"
    with pytest.raises(SamtuneError, match=message):
        load_dataset(name, root=tmp_path, download=False)


def test_a_download_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = (tmp_path / "no_such_archive").as_uri()
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", nowhere)
    with pytest.raises(SamtuneError, match=r"no_such_archive.*\. Put them there, point dataset\."):
        load_dataset("cifar10", root=tmp_path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("which", [0, -1])
def test_a_damaged_file_is_no_data_set(
    tmp_path: Path, name: str, which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cifar(tmp_path, name, IMAGES, labels(name), monkeypatch)
    source = CIFAR_SOURCES[name]
    path = folder / (source.train_list + source.test_list)[which][0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # one bit, and the checksum differs
    path.write_bytes(content)
    with pytest.raises(SamtuneError, match=f"{tmp_path}, or are damaged .*corrupted"):
        load_dataset(name, root=tmp_path, download=False)


def test_a_truncated_archive_is_no_data_set(
    tmp_path: Path, mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = mirror
    write_cifar(folder, "cifar10", IMAGES, labels("cifar10"), monkeypatch)
    archive = pack_cifar(folder / "cifar-10-batches-py", "cifar10", monkeypatch)
    archive.write_bytes(archive.read_bytes()[:-1000])
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", f"{address}/{archive.name}")
    with pytest.raises(SamtuneError, match="dataset cifar10: .*corrupted"):
        load_dataset("cifar10", root=tmp_path)


def test_the_test_images_are_read_when_they_are_opened_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cifar(tmp_path, "cifar10", IMAGES, labels("cifar10"), monkeypatch)
    data = load_dataset("cifar10", root=tmp_path, download=False)
    shutil.rmtree(folder)
    with pytest.raises(SamtuneError, match="dataset cifar10: its files are not in"):
        data.open_test()
