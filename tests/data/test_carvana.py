"""Carvana from photographs and masks as the competition's archives unpack, small ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from samtune.data import load_dataset
from samtune.data.streaming import ImageFiles
from samtune.errors import SamtuneError
from tests.data.files import blob, write_carvana


def load(root: Path, **settings: object):
    return load_dataset("carvana", root=root, image_size=(12, 18), **settings)


def files(root: Path, **settings: object) -> list[ImageFiles]:
    data = load(root, in_memory="never", **settings)
    return [data.train, data.val, data.open_test()]


def cars(split: ImageFiles) -> set[str]:
    return {path.stem.partition("_")[0] for path in split.paths}


@pytest.mark.parametrize("suffix", [".gif", ".png"])
def test_every_photograph_comes_with_its_mask(tmp_path: Path, suffix: str) -> None:
    write_carvana(tmp_path, cars=5, views=2, mask_suffix=suffix)
    car = tmp_path / "train_masks" / f"000000000003_01_mask{suffix}"
    shifted = np.roll(blob(12, 18), 2, axis=1)  # unlike all the others
    Image.fromarray(255 * shifted).save(car)

    data = load(tmp_path)
    assert (data.task, data.num_classes, data.image_size) == ("segmentation", 1, (12, 18))
    found = {
        image.numpy().tobytes(): mask.numpy()
        for split in (data.train, data.val, data.open_test())
        for image, mask in zip(split.images, split.targets, strict=True)
    }
    assert len(found) == 10
    for path in (tmp_path / "train").iterdir():
        with Image.open(path) as image:
            mask = found[np.asarray(image).tobytes()]
        expected = shifted if path.stem == "000000000003_01" else blob(12, 18)
        assert np.array_equal(mask, expected)


@pytest.mark.parametrize("split_seed", range(5))
def test_the_views_of_a_car_stay_in_one_split(tmp_path: Path, split_seed: int) -> None:
    write_carvana(tmp_path, cars=20, views=4)
    splits = files(tmp_path, split_seed=split_seed)
    assert [len(split) for split in splits] == [64, 8, 8]  # a tenth of the images is two cars
    assert [len(cars(split)) for split in splits] == [16, 2, 2]
    assert len(set.union(*map(cars, splits))) == 20
    for split in splits:
        for image, mask in zip(split.paths, split.masks, strict=True):
            assert mask.name == f"{image.stem}_mask.gif"


def test_another_split_seed_holds_out_other_cars(tmp_path: Path) -> None:
    write_carvana(tmp_path, cars=20, views=2)
    held_out = [cars(files(tmp_path, split_seed=seed)[1]) for seed in (0, 0, 1)]
    assert held_out[0] == held_out[1] != held_out[2]


def test_three_cars_are_one_for_each_split(tmp_path: Path) -> None:
    write_carvana(tmp_path, cars=3, views=4)
    assert [len(split) for split in files(tmp_path, held_out=0.3)] == [4, 4, 4]


def test_two_cars_are_too_few(tmp_path: Path) -> None:
    write_carvana(tmp_path, cars=2, views=4)
    with pytest.raises(SamtuneError, match="3 splits need as many cars, but there are 2"):
        load(tmp_path)


def test_held_and_streamed_photographs_are_the_same(tmp_path: Path) -> None:
    write_carvana(tmp_path, cars=4, views=2)
    settings = {"crop_padding": 2, "padding": "reflect"}
    held = load(tmp_path, in_memory="always", **settings)
    streamed = load(tmp_path, in_memory="never", workers=0, **settings)
    made = [data.train_batches(2, torch.device("cpu")).shuffled(5) for data in (held, streamed)]
    for one, other in zip(*made, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("missing", ["train", "train_masks"])
def test_a_folder_that_is_not_there_is_asked_for(tmp_path: Path, missing: str) -> None:
    write_carvana(tmp_path, cars=4, views=2)
    shutil.rmtree(tmp_path / missing)
    message = f"{tmp_path} must hold train and train_masks, .* or set dataset.root"
    with pytest.raises(SamtuneError, match=message):
        load(tmp_path)


def test_a_photograph_without_a_mask_is_named(tmp_path: Path) -> None:
    write_carvana(tmp_path, cars=4, views=2)
    (tmp_path / "train_masks" / "000000000002_01_mask.gif").unlink()
    with pytest.raises(SamtuneError, match="1 images have no mask in .*, 000000000002_01.jpg the"):
        load(tmp_path)


@pytest.mark.parametrize(
    "name", ["train/000000000002_01.jpg", "train_masks/000000000002_01_mask.gif"]
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    path = write_carvana(tmp_path, cars=4, views=2) / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SamtuneError, match=f"{name} cannot be read .*: replace or remove it"):
        load(tmp_path).open_test()


def test_a_mask_without_a_car_is_named(tmp_path: Path) -> None:
    write_carvana(tmp_path, cars=4, views=2)
    Image.new("L", (18, 12)).save(tmp_path / "train_masks" / "000000000002_01_mask.gif")
    with pytest.raises(SamtuneError, match="000000000002_01_mask.gif has no foreground pixel"):
        load(tmp_path).open_test()
