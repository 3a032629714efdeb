"""SVHN from MATLAB files, small ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torchvision

from samtune.data import load_dataset
from samtune.errors import SamtuneError
from tests.data.files import classes, pixels, write_svhn

IMAGES, LABELS = pixels(100, 32, 32, 3), classes(100, 10)


def test_every_image_keeps_its_pixels_and_its_label_and_the_digit_0_is_class_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_svhn(tmp_path, "train", IMAGES, LABELS, monkeypatch)
    data = load_dataset("svhn", root=tmp_path, download=False)
    assert (data.num_classes, data.in_channels, data.image_size) == (10, 3, (32, 32))
    expected = {image.tobytes(): int(label) for image, label in zip(IMAGES, LABELS, strict=True)}
    found = {
        image.numpy().tobytes(): int(label)
        for split in (data.train, data.val)
        for image, label in zip(split.images, split.targets, strict=True)
    }
    assert found == expected


def test_the_test_file_is_needed_when_it_is_opened_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_svhn(tmp_path, "train", IMAGES, LABELS, monkeypatch)
    data = load_dataset("svhn", root=tmp_path, download=False)
    with pytest.raises(SamtuneError, match="dataset svhn: its files are not in"):
        data.open_test()
    write_svhn(tmp_path, "test", IMAGES[:20], LABELS[:20], monkeypatch)
    test = data.open_test()
    assert test.images.tolist() == IMAGES[:20].tolist()
    assert test.targets.tolist() == LABELS[:20].tolist()


def test_the_file_is_fetched_into_a_new_folder(
    tmp_path: Path, mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = mirror
    path = write_svhn(folder, "train", IMAGES, LABELS, monkeypatch)
    _, name, checksum = torchvision.datasets.SVHN.split_list["train"]
    listed = {"train": [f"{address}/{path.name}", name, checksum]}
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", listed)
    assert len(load_dataset("svhn", root=tmp_path / "new").train) == 90


@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "one bit"])
def test_a_missing_or_damaged_file_is_no_data_set(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_svhn(tmp_path, "train", IMAGES, LABELS, monkeypatch)
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "one bit":
        path.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    else:
        path.write_bytes(content[: 0 if how == "empty" else -100])
    message = f"dataset svhn: its files are not in {tmp_path}, or are damaged .* Put them there"
    with pytest.raises(SamtuneError, match=message):
        load_dataset("svhn", root=tmp_path, download=False)
    with pytest.raises(SamtuneError, match="no_such_mirror"):
        load_dataset("svhn", root=tmp_path)
