"""An exported model on image files: in folders, to be measured, and single, to be named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from samtune.data import Images, load_dataset
from samtune.errors import SamtuneError
from samtune.export import ExportedModel, evaluate_folder, evaluate_split, predict
from samtune.models import build_model
from tests.export.written import preprocessed, said
from tests.models.small import SMALL

NAMES = [f"digit {i}" for i in range(10)]


def model(name: str, task: str, num_classes: int, side: int, **about: Any) -> ExportedModel:
    recipe = {"name": name, "in_channels": 1, "num_classes": num_classes, **SMALL[name]}
    torch.manual_seed(0)
    network = build_model(**recipe, image_size=(side, side))  # type: ignore[arg-type]
    told = said({**recipe, "image_size": [side, side]}, size=(side, side), task=task, **about)
    return ExportedModel(preprocessed(network, told, num_classes), told).eval()


def classifier(**about: Any) -> ExportedModel:
    return model("resnet", "classification", 10, 8, **about)


def segmenter(num_classes: int = 1) -> ExportedModel:
    return model("unet", "segmentation", num_classes, 32)


def save(path: Path, pixels: Tensor, scale: int = 1, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels.numpy()).convert(mode)
    height, width = pixels.shape
    image.resize((width * scale, height * scale), Image.Resampling.NEAREST).save(path)
    return path


@pytest.fixture
def digits(tmp_path: Path) -> tuple[Path, Images]:
    """Forty digits in a folder a class, as files."""
    val = load_dataset("digits").val
    assert isinstance(val, Images)
    for i in range(40):
        folder = tmp_path / "digits" / NAMES[int(val.targets[i])]
        save(folder / f"{i}.png", val.images[i, :, :, 0])
    return tmp_path / "digits", val[torch.arange(40)]


def test_class_folders_are_measured_by_the_names_of_the_classes(
    digits: tuple[Path, Images],
) -> None:
    folder, images = digits
    loaded = classifier(classes=NAMES)
    with torch.no_grad():
        logits = loaded(images.images.permute(0, 3, 1, 2))
    found = evaluate_folder(loaded, folder)
    assert found.images == 40
    right = (logits.argmax(1) == images.targets).double().mean().item()
    assert found.metrics["accuracy"] == pytest.approx(right)
    loss = torch.nn.functional.cross_entropy(logits, images.targets).item()
    assert found.metrics["loss"] == pytest.approx(loss, abs=1e-5)

    unnamed = evaluate_folder(classifier(), folder)  # ten folders, which are in the same order
    assert unnamed == found


@pytest.mark.parametrize(
    ("names", "folders", "message"),
    [
        (NAMES, ["digit_3"], "a folder|found digit_3. Did you mean 'digit 3'"),
        (NAMES, [], "found none"),
        (NAMES, ["digit 3"], "has no images in its class folders"),
        ([], ["a", "b"], "has 2 folders, and the model 10 classes, whose names it does not know"),
    ],
)
def test_folders_that_are_not_its_classes_are_refused(
    tmp_path: Path, names: list[str], folders: list[str], message: str
) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir()
    with pytest.raises(SamtuneError, match=message):
        evaluate_folder(classifier(classes=names), tmp_path)


def test_a_folder_of_images_and_masks_is_measured(tmp_path: Path) -> None:
    val = load_dataset("digits_segmentation").val
    assert isinstance(val, Images)
    for i in range(6):
        save(tmp_path / "images" / f"{i}.png", val.images[i, :, :, 0])
        save(tmp_path / "masks" / f"{i}.png", val.targets[i] * 255)
    loaded = segmenter()
    with torch.no_grad():
        predicted = loaded(val.images[:6].permute(0, 3, 1, 2))[:, 0] > 0
    found = evaluate_folder(loaded, tmp_path)
    right = (predicted == val.targets[:6].bool()).double().mean().item()
    assert found.metrics["pixel_accuracy"] == pytest.approx(right)


def of_folder(root: Path) -> ExportedModel:
    config = {"dataset": {"name": "image_folder", "root": str(root), "image_size": [8, 8]}}
    return classifier(classes=NAMES, config=config)


@pytest.mark.parametrize("inside", ["", "test", "val", "test/digit 3", ".."])
def test_the_test_images_of_its_own_data_set_stay_locked(
    digits: tuple[Path, Images], inside: str
) -> None:
    folder, _ = digits
    loaded = of_folder(folder)
    (folder / inside).mkdir(parents=True, exist_ok=True)
    with pytest.raises(SamtuneError, match="with its test images, which `samtune confirm` alone"):
        evaluate_folder(loaded, folder / inside)
    if inside:
        with pytest.raises(SamtuneError, match="with its test images, which `samtune confirm` al"):
            evaluate_split(loaded, "val", root=folder / inside)


def test_no_name_opens_the_test_split() -> None:
    with pytest.raises(SamtuneError, match="the test split is locked: `samtune confirm` reads it"):
        evaluate_split(classifier(), "test")
    with pytest.raises(SamtuneError, match="there is no split 'tset': take val or train"):
        evaluate_split(classifier(), "tset")


def test_a_data_set_that_has_changed_is_refused() -> None:
    with pytest.raises(SamtuneError, match="no longer the one that the model was trained on"):
        evaluate_split(classifier(classes=NAMES))  # the digits' own names are 0 to 9


def test_an_image_is_read_in_the_models_size_and_colours(tmp_path: Path) -> None:
    val = load_dataset("digits").val
    assert isinstance(val, Images)
    loaded = classifier(classes=NAMES)
    path = save(tmp_path / "large.png", val.images[0, :, :, 0], scale=5, mode="RGB")
    small = Image.open(path).convert("L").resize((8, 8), Image.Resampling.BILINEAR)
    with torch.no_grad():
        logits = loaded(torch.from_numpy(np.array(small))[None, None])
    expected = dict(zip(NAMES, logits.softmax(1)[0].tolist(), strict=True))
    (found,) = predict(loaded, [path])
    assert found.probabilities == pytest.approx(expected)
    values = list(found.probabilities.values())
    assert values == sorted(values, reverse=True)
    assert (found.image, found.mask) == (path, None)


def test_a_capsules_probability_is_its_length(tmp_path: Path) -> None:
    loaded = model("capsnet", "capsule", 3, 17)
    path = save(tmp_path / "noise.png", (torch.rand(17, 17) * 255).byte())
    with torch.no_grad():
        capsules, _ = loaded.network(
            (torch.from_numpy(np.array(Image.open(path)))[None, None] / 255 - 0.3) / 0.4
        )
    (found,) = predict(loaded, [path])
    expected = dict(zip("012", capsules[0].norm(dim=-1).tolist(), strict=True))
    assert found.probabilities == pytest.approx(expected, abs=2e-4)  # capsnet.EPSILON under a root


@pytest.mark.parametrize("num_classes", [1, 3])
def test_a_mask_has_the_size_of_its_image_and_is_never_replaced_unasked(
    tmp_path: Path, num_classes: int
) -> None:
    loaded = segmenter(num_classes)
    pixels = (torch.rand(32, 32) * 255).byte()
    path = save(tmp_path / "noise.png", pixels, scale=2)
    with torch.no_grad():
        logits = loaded(
            torch.from_numpy(np.array(Image.open(path).resize((32, 32), 2)))[None, None]
        )[0]
    mask = (logits[0] > 0) * 255 if num_classes == 1 else logits.argmax(0)
    (found,) = predict(loaded, [path], masks=tmp_path)
    assert found.mask == tmp_path / "noise_mask.png"
    written = np.array(Image.open(found.mask))
    assert written.shape == (64, 64)
    assert (written[::2, ::2] == mask.numpy()).all()
    assert sum(found.probabilities.values()) == pytest.approx(1)
    if num_classes == 1:
        share = (mask > 0).float().mean().item()
        assert found.probabilities["foreground"] == pytest.approx(share)

    found.mask.write_bytes(b"mine")
    with pytest.raises(SamtuneError, match="noise_mask.png exists; add --force"):
        list(predict(loaded, [path], masks=tmp_path))
    assert found.mask.read_bytes() == b"mine"
    assert list(predict(loaded, [path], masks=tmp_path, overwrite=True)) == [found]


def test_what_is_outside_of_a_smaller_mask_is_background(tmp_path: Path) -> None:
    """A U-Net gives multiples of 16: of 40 pixels a side it sees 32 in the middle."""
    loaded = segmenter()
    told = loaded.about
    loaded.about = replace(told, input=replace(told.input, height=40, width=40))
    path = save(tmp_path / "noise.png", (torch.rand(40, 40) * 255).byte())
    with torch.no_grad():
        loaded.network.logits.bias.fill_(1e3)  # type: ignore[operator,union-attr]
    (found,) = predict(loaded, [path], masks=tmp_path)
    assert found.mask is not None
    written = np.array(Image.open(found.mask))
    assert written[4:36, 4:36].min() == 255
    assert written.sum() == 255 * 32 * 32


def test_two_images_of_one_name_would_have_one_mask(tmp_path: Path) -> None:
    with pytest.raises(SamtuneError, match="two images have the same name"):
        list(predict(segmenter(), [Path("a/1.png"), Path("b/1.png")], masks=tmp_path))
