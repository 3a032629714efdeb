"""Oxford pets from photographs, trimaps and lists as the archives unpack, small ones."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from samtune.data import load_dataset
from samtune.data.streaming import ImageFiles
from samtune.errors import SamtuneError
from tests.data.files import md5, write_oxford_pet

BREEDS = {"Abyssinian": 1, "american_bulldog": 2, "beagle": 5}


def load(root: Path, **settings: object):
    return load_dataset("oxford_pet", root=root, download=False, image_size=(12, 16), **settings)


def as_read(folder: Path, names: list[str]) -> dict[bytes, np.ndarray]:
    """The trimap of each image in classes 0, 1, 2, by the image's pixels."""
    found = {}
    for name in names:
        with Image.open(folder / "images" / f"{name}.jpg") as file:
            pixels = np.asarray(file.resize((16, 12), Image.Resampling.BILINEAR))
        with Image.open(folder / "annotations" / "trimaps" / f"{name}.png") as file:
            mask = np.asarray(file.resize((16, 12), Image.Resampling.NEAREST))
        found[pixels.tobytes()] = mask - 1
    return found


def test_every_image_of_the_list_comes_with_its_trimap(tmp_path: Path) -> None:
    folder = write_oxford_pet(tmp_path, BREEDS, each=4)
    data = load(tmp_path)
    assert (data.task, data.num_classes, data.image_size) == ("segmentation", 3, (12, 16))
    trainval = as_read(folder, [f"{breed}_{i}" for breed in BREEDS for i in range(4)])
    test = as_read(folder, [f"{breed}_{i}" for breed in BREEDS for i in range(4, 8)])
    for splits, expected in (((data.train, data.val), trainval), ((data.open_test(),), test)):
        found = {
            image.numpy().tobytes(): mask.numpy()
            for split in splits
            for image, mask in zip(split.images, split.targets, strict=True)
        }
        assert found.keys() == expected.keys()
        for pixels, mask in found.items():
            assert np.array_equal(mask, expected[pixels])
    assert set(np.unique(next(iter(trainval.values())))) == {0, 1, 2}


def test_validation_holds_every_breed_in_its_share(tmp_path: Path) -> None:
    write_oxford_pet(tmp_path, BREEDS, each=10)

    def held_out(**settings: object) -> list[str]:
        data = load(tmp_path, in_memory="never", held_out=0.2, **settings)
        assert isinstance(data.val, ImageFiles)
        assert len(data.train) == 24
        assert not {*data.train.paths} & {*data.val.paths}
        return [path.stem for path in data.val.paths]

    first = held_out()
    assert sorted(name.rpartition("_")[0] for name in first) == sorted(2 * list(BREEDS))
    assert held_out() == first
    assert held_out(split_seed=1) != first


def test_the_archives_are_fetched(
    tmp_path: Path, mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, address = mirror
    folder = write_oxford_pet(tmp_path / "source", BREEDS, each=3)
    resources = []
    for name in ("images", "annotations"):
        archive = served / f"{name}.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(folder / name, name)
        resources.append((f"{address}/{archive.name}", md5(archive)))
    monkeypatch.setattr(torchvision.datasets.OxfordIIITPet, "_RESOURCES", resources)
    data = load_dataset("oxford_pet", root=tmp_path / "new", image_size=(12, 16))
    expected = load(tmp_path / "source")
    assert torch.equal(data.train.images, expected.train.images)
    assert torch.equal(data.train.targets, expected.train.targets)


@pytest.mark.parametrize("missing", ["images", "annotations", "annotations/trainval.txt"])
def test_what_is_not_there_is_asked_for(tmp_path: Path, missing: str) -> None:
    path = write_oxford_pet(tmp_path, BREEDS, each=3) / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    message = f"dataset oxford_pet: its files are not in {tmp_path}.* set dataset.download to true"
    with pytest.raises(SamtuneError, match=message):
        load(tmp_path)


def test_a_damaged_list_is_no_data_set(tmp_path: Path) -> None:
    folder = write_oxford_pet(tmp_path, BREEDS, each=3)
    path = folder / "annotations" / "trainval.txt"
    path.write_text(path.read_text()[:-5])
    with pytest.raises(SamtuneError, match=f"{tmp_path}, or are damaged"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["images/beagle_1.jpg", "annotations/trimaps/beagle_1.png"])
@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_a_missing_or_damaged_image_is_named(tmp_path: Path, name: str, how: str) -> None:
    path = write_oxford_pet(tmp_path, BREEDS, each=3) / name
    path.unlink() if how == "missing" else path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(SamtuneError, match=f"image {path} cannot be read .*: replace or remove"):
        load(tmp_path)


def test_a_trimap_with_another_value_is_refused(tmp_path: Path) -> None:
    folder = write_oxford_pet(tmp_path, BREEDS, each=3)
    path = folder / "annotations" / "trimaps" / "beagle_1.png"
    Image.new("L", (16, 13), 4).save(path)
    with pytest.raises(SamtuneError, match="beagle_1.png has pixels from 4 to 4, .* are 1 to 3"):
        load(tmp_path)
