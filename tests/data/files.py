"""Small data sets of random pixels, written as the real ones are: same names, same formats.

torchvision compares files with the checksums of the true ones; `monkeypatch` puts in those of the
small ones, so that a damaged file is still found out.
"""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torchvision
from PIL import Image

from samtune.data import DataSplits, Images

Array = np.ndarray[Any, Any]
CIFAR_SOURCES = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}
MNIST_SOURCES = {
    "mnist": torchvision.datasets.MNIST,
    "fashion_mnist": torchvision.datasets.FashionMNIST,
}


def pixels(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def classes(count: int, num_classes: int, seed: int = 0) -> Array:
    """Every class as often as every other, in random order."""
    return np.random.default_rng(seed).permutation(np.arange(count) % num_classes)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def blob(height: int, width: int) -> Array:
    """Foreground in the middle of a mask, background around it."""
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[height // 4 : -height // 4, width // 4 : -width // 4] = 1
    return mask


def write_cifar(
    root: Path, name: str, images: Array, labels: Array, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Python pickles of rows (red, green, blue plane), a sixth of the images for testing."""
    source = CIFAR_SOURCES[name]
    folder = root / source.base_folder
    folder.mkdir(parents=True)
    key = "labels" if name == "cifar10" else "fine_labels"
    names = [n for n, _ in source.train_list + source.test_list]
    train = len(images) * 5 // 6
    parts = [*np.array_split(np.arange(train), len(names) - 1), np.arange(train, len(images))]
    for file, part in zip(names, parts, strict=True):
        rows = images[part].transpose(0, 3, 1, 2).reshape(len(part), 3072)
        content = {
            "data": rows,
            key: labels[part].tolist(),
            "filenames": [f"{i}.png" for i in part],
        }
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))
    meta = folder / source.meta["filename"]
    meta.write_bytes(pickle.dumps({source.meta["key"]: [str(i) for i in range(100)]}, protocol=2))
    sums = [[n, md5(folder / n)] for n in names]
    monkeypatch.setattr(source, "train_list", sums[:-1])
    monkeypatch.setattr(source, "test_list", sums[-1:])
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5(meta)})
    return folder


def pack_cifar(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive as it is downloaded, of a folder that then goes away."""
    source = CIFAR_SOURCES[name]
    archive = folder.parent / source.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    monkeypatch.setattr(source, "tgz_md5", md5(archive))
    return archive


def write_mnist(
    root: Path,
    name: str,
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    monkeypatch: pytest.MonkeyPatch,
    packed: bool = False,
) -> Path:
    """The four idx files: zeros, type 8 (uint8), number of axes, their lengths, the bytes."""
    source = MNIST_SOURCES[name]
    raw = root / source.__name__ / "raw"
    raw.mkdir(parents=True)
    resources = []
    for (file, _), array in zip(source.resources, (*train, *test), strict=True):
        head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        content = head + array.astype(np.uint8).tobytes()
        path = raw / (file if packed else file.removesuffix(".gz"))
        path.write_bytes(gzip.compress(content) if packed else content)
        resources.append((file, md5(path)))
    monkeypatch.setattr(source, "resources", resources)
    monkeypatch.setattr(source, "mirrors", [(root / "no_such_mirror").as_uri() + "/"])
    return raw


def write_svhn(
    root: Path, split: str, images: Array, labels: Array, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A .mat file: X is (32, 32, 3, N), and the digit 0 is class 10 in y."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"{split}_32x32.mat"
    y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
    scipy.io.savemat(path, {"X": images.transpose(1, 2, 3, 0), "y": y})
    missing = (root / "no_such_mirror").as_uri()
    listed = {**torchvision.datasets.SVHN.split_list, split: [missing, path.name, md5(path)]}
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", listed)
    return path


def write_oxford_pet(root: Path, breeds: dict[str, int], each: int) -> Path:
    """Photographs, trimaps of 1 (animal), 2 (background) and 3 (border), and the two lists.

    Args:
        breeds: a number for each, from 1 as in the lists.
        each: how many of a breed there are in `trainval`, and as many in `test`.
    """
    folder = root / "oxford-iiit-pet"
    (folder / "images").mkdir(parents=True)
    (folder / "annotations" / "trimaps").mkdir(parents=True)
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for breed, number in breeds.items():
        for i in range(2 * each):
            name = f"{breed}_{i}"
            height, width = 12 + i, 16
            image = Image.fromarray(pixels(height, width, 3, seed=100 * number + i))
            image.save(folder / "images" / f"{name}.jpg")
            trimap = 2 - blob(height, width)
            trimap[height // 2] = 3
            Image.fromarray(trimap).save(folder / "annotations" / "trimaps" / f"{name}.png")
            species = 1 if breed[0].isupper() else 2  # cats are written with a capital
            lists["trainval" if i < each else "test"].append(f"{name} {number} {species} 1")
    for name, lines in lists.items():
        (folder / "annotations" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_carvana(root: Path, cars: int, views: int, mask_suffix: str = ".gif") -> Path:
    """Photographs named CAR_VIEW.jpg and masks named CAR_VIEW_mask.gif."""
    (root / "train").mkdir(parents=True)
    (root / "train_masks").mkdir()
    for car in range(cars):
        for view in range(1, views + 1):
            name = f"{car:012x}_{view:02}"
            image = Image.fromarray(pixels(12, 18, 3, seed=100 * car + view))
            image.save(root / "train" / f"{name}.jpg")
            mask = Image.fromarray(blob(12, 18))
            mask.putpalette([0, 0, 0, 255, 255, 255])
            mask.save(root / "train_masks" / f"{name}_mask{mask_suffix}")
    return root


def write_image_folder(root: Path, counts: dict[str, int], size: tuple[int, int] = (8, 8)) -> Path:
    """PNG files in one folder a class."""
    for i, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for j in range(count):
            image = Image.fromarray(pixels(*size, 3, seed=1000 * i + j))
            image.save(root / name / f"{j:03}.png")
    return root


def write_segmentation_folder(root: Path, count: int, size: tuple[int, int] = (8, 8)) -> Path:
    """PNG files and their masks, of 0 and 255."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for i in range(count):
        Image.fromarray(pixels(*size, 3, seed=i)).save(root / "images" / f"{i}.png")
        Image.fromarray(np.where(pixels(*size, seed=i) > 99, 255, 0).astype(np.uint8)).save(
            root / "masks" / f"{i}.png"
        )
    return root


def _cifar_settings(name: str) -> Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]:
    def write(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        write_cifar(root, name, pixels(60, 32, 32, 3), classes(60, 10), monkeypatch)
        return {"root": root, "download": False}

    return write


def _mnist_settings(name: str) -> Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]:
    def write(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        train, test = ((pixels(n, 28, 28, seed=n), classes(n, 10)) for n in (50, 20))
        write_mnist(root, name, train, test, monkeypatch)
        return {"root": root, "download": False}

    return write


def _svhn_settings(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for split, count in (("train", 50), ("test", 20)):
        write_svhn(
            root, split, pixels(count, 32, 32, 3, seed=count), classes(count, 10), monkeypatch
        )
    return {"root": root, "download": False}


def _oxford_pet_settings(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    write_oxford_pet(root, {"Abyssinian": 1, "beagle": 5}, each=5)
    return {"root": root, "download": False, "image_size": (8, 8)}


def _carvana_settings(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"root": write_carvana(root, cars=4, views=2), "image_size": (8, 12)}


def _image_folder_settings(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"root": write_image_folder(root, {"cat": 10, "dog": 10}), "image_size": (8, 8)}


def _segmentation_folder_settings(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"root": write_segmentation_folder(root, 10), "image_size": (8, 8)}


SETTINGS: dict[str, Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]] = {
    "carvana": _carvana_settings,
    "cifar10": _cifar_settings("cifar10"),
    "cifar100": _cifar_settings("cifar100"),
    "fashion_mnist": _mnist_settings("fashion_mnist"),
    "image_folder": _image_folder_settings,
    "mnist": _mnist_settings("mnist"),
    "oxford_pet": _oxford_pet_settings,
    "random": lambda root, monkeypatch: {"images": 40, "image_size": (8, 8)},
    "segmentation_folder": _segmentation_folder_settings,
    "svhn": _svhn_settings,
}
"""Writes the files of a data set and returns the settings to load them with."""


def labels_by_image(data: DataSplits) -> dict[bytes, int]:
    """The label of each image to train and validate with, by its pixels."""
    found = {}
    for split in (data.train, data.val):
        assert isinstance(split, Images)
        for image, label in zip(split.images, split.targets, strict=True):
            found[image.numpy().tobytes()] = int(label)
    return found
