"""MNIST and Fashion-MNIST from idx files, packed and unpacked, small ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from samtune.data import load_dataset
from samtune.errors import SamtuneError
from tests.data.files import MNIST_SOURCES, classes, labels_by_image, pixels, write_mnist

NAMES = sorted(MNIST_SOURCES)
TRAIN = pixels(100, 28, 28), classes(100, 10)
TEST = pixels(20, 28, 28, seed=1), classes(20, 10, seed=1)
FILES = [
    f"{split}-{kind}-ubyte"
    for split in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("packed", [False, True])
def test_every_image_keeps_its_pixels_and_its_label(
    tmp_path: Path, name: str, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path, name, TRAIN, TEST, monkeypatch, packed)
    data = load_dataset(name, root=tmp_path, download=packed)
    assert (data.num_classes, data.in_channels, data.image_size) == (10, 1, (28, 28))
    expected = {image.tobytes(): int(label) for image, label in zip(*TRAIN, strict=True)}
    assert labels_by_image(data) == expected
    test = data.open_test()
    assert test.images[..., 0].tolist() == TEST[0].tolist()
    assert test.targets.tolist() == TEST[1].tolist()
    assert test.targets.dtype == torch.int64


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("missing", FILES)
def test_each_of_the_four_files_is_asked_for(
    tmp_path: Path, name: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_mnist(tmp_path, name, TRAIN, TEST, monkeypatch)
    (raw / missing).unlink()
    message = f"dataset {name}: its files are not in {tmp_path}.* set dataset.download to true"
    with pytest.raises(SamtuneError, match=message):
        load_dataset(name, root=tmp_path, download=False)
    with pytest.raises(SamtuneError, match=r"Error downloading .*no_such_mirror"):
        load_dataset(name, root=tmp_path)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    "how", ["empty", "head only", "truncated", "a web page", "another type", "no type"]
)
def test_a_damaged_file_is_no_data_set(
    tmp_path: Path, file: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = write_mnist(tmp_path, "mnist", TRAIN, TEST, monkeypatch)
    content = (raw / file).read_bytes()
    damaged = {
        "empty": b"",
        "head only": content[:6],
        "truncated": content[:-5],
        "a web page": b"<html>Please log in</html>" * 9,
        "another type": content[:2] + b"\x09" + content[3:],  # signed bytes
        "no type": content[:2] + b"\x0a" + content[3:],  # the format has no type 10
    }
    (raw / file).write_bytes(damaged[how])
    with pytest.raises(SamtuneError, match=f"dataset mnist: .*{tmp_path}, or are damaged"):
        load_dataset("mnist", root=tmp_path, download=False).open_test()


@pytest.mark.parametrize("part", ["train", "test"])
def test_as_many_labels_as_images_are_asked_for(
    tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = {"train": TRAIN, "test": TEST}
    sets[part] = sets[part][0], sets[part][1][:-1]
    write_mnist(tmp_path, "mnist", *sets.values(), monkeypatch)
    counts = "100 images but 99 labels" if part == "train" else "20 images but 19 labels"
    with pytest.raises(SamtuneError, match=rf"{tmp_path}, or are damaged \({counts}\)\. Put them"):
        load_dataset("mnist", root=tmp_path, download=False).open_test()


def test_a_damaged_archive_is_no_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_mnist(tmp_path, "mnist", TRAIN, TEST, monkeypatch, packed=True)
    path = raw / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SamtuneError, match="Error downloading train-images-idx3-ubyte.gz"):
        load_dataset("mnist", root=tmp_path)
