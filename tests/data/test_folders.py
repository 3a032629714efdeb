"""Folders of images, with classes or with masks: which file lands where, and what is a mistake."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from samtune.data import DataSplits, Images, file_splits, load_dataset
from samtune.data.file_splits import IN_MEMORY_BYTES, held, image_paths, masks_of
from samtune.data.splits import Split
from samtune.data.streaming import ImageFiles
from samtune.errors import SamtuneError
from tests.data.files import pixels, write_image_folder, write_segmentation_folder

CPU = torch.device("cpu")


def classified(root: Path, **settings: Any) -> DataSplits:
    return load_dataset("image_folder", root=root, image_size=(8, 8), **settings)


def segmented(root: Path, **settings: Any) -> DataSplits:
    return load_dataset("segmentation_folder", root=root, image_size=(8, 8), **settings)


def contents(*splits: Split) -> list[bytes]:
    return [image.numpy().tobytes() for split in splits for image in split.images]


# --- classes


def test_the_classes_are_the_folders_in_alphabetical_order(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "train", {"bee": 4, "ant": 3, "cat": 5})
    data = classified(tmp_path, held_out=0.1)
    assert (data.num_classes, data.classes) == (3, ["ant", "bee", "cat"])
    everything = [data.train, data.val, data.open_test()]
    assert [len(split) for split in everything] == [10, 1, 1]
    assert torch.bincount(torch.cat([s.targets for s in everything])).tolist() == [3, 4, 5]
    # `files.write_image_folder` draws bee's pixels from the seeds 0..., ant's from 1000...
    class_of = {
        pixels(8, 8, 3, seed=1000 * i + j).tobytes(): label
        for i, label in enumerate((1, 0, 2))
        for j in range(5)
    }
    for split in everything:
        found = [class_of[content] for content in contents(split)]
        assert found == split.targets.tolist()


def test_without_train_the_folder_itself_holds_the_training_images(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "with" / "train", {"cat": 10, "dog": 10})
    shutil.copytree(tmp_path / "with" / "train", tmp_path / "without")
    one, other = classified(tmp_path / "with"), classified(tmp_path / "without")
    assert contents(one.train, one.val) == contents(other.train, other.val)


def test_splits_that_have_a_folder_are_taken_as_they_are(tmp_path: Path) -> None:
    for name, count in (("train", 10), ("val", 3), ("test", 2)):
        write_image_folder(tmp_path / name, {"cat": count, "dog": count})
    data = classified(tmp_path)
    assert [len(data.train), len(data.val), len(data.open_test())] == [20, 6, 4]
    assert data.val.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert contents(data.val) == [
        pixels(8, 8, 3, seed=1000 * i + j).tobytes() for i in (0, 1) for j in range(3)
    ]


def test_held_out_images_are_a_share_of_every_class_and_in_one_split_only(tmp_path: Path) -> None:
    write_image_folder(tmp_path, {"cat": 40, "dog": 20})
    data = classified(tmp_path, held_out=0.25)
    test = data.open_test()
    assert [torch.bincount(s.targets).tolist() for s in (data.train, data.val, test)] == [
        [20, 10],
        [10, 5],
        [10, 5],
    ]
    assert len(set(contents(data.train, data.val, test))) == 60


def test_only_the_missing_splits_are_held_out(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "train", {"cat": 10, "dog": 10})
    write_image_folder(tmp_path / "test", {"cat": 4, "dog": 4})
    data = classified(tmp_path, held_out=0.2)
    assert [len(data.train), len(data.val), len(data.open_test())] == [16, 4, 8]


def test_another_split_seed_holds_out_other_images(tmp_path: Path) -> None:
    write_image_folder(tmp_path, {"cat": 20, "dog": 20})
    first, again = contents(classified(tmp_path).val), contents(classified(tmp_path).val)
    assert first == again
    assert first != contents(classified(tmp_path, split_seed=1).val)


def test_images_are_resized_and_read_in_grey_where_that_is_asked(tmp_path: Path) -> None:
    write_image_folder(tmp_path, {"cat": 3, "dog": 3}, size=(16, 20))
    data = load_dataset("image_folder", root=tmp_path, image_size=(4, 6), channels=1)
    assert data.image_size == (4, 6)
    assert data.in_channels == len(data.mean) == len(data.std) == 1
    with Image.open(tmp_path / "dog" / "000.png") as image:
        expected = image.convert("L").resize((6, 4), Image.Resampling.BILINEAR)
    everything = contents(data.train, data.val, data.open_test())
    assert np.asarray(expected).tobytes() in everything


def test_files_that_are_no_images_are_passed_over(tmp_path: Path) -> None:
    write_image_folder(tmp_path, {"cat": 3, "dog": 3})
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "dog" / "000.png").rename(tmp_path / "dog" / "000.PNG")
    data = classified(tmp_path)
    assert len(data.train) + len(data.val) + len(data.open_test()) == 6


# --- masks


def test_a_mask_has_the_name_of_its_image_with_or_without_mask(tmp_path: Path) -> None:
    write_segmentation_folder(tmp_path / "train", 10)
    masks = tmp_path / "train" / "masks"
    for i in range(5):
        (masks / f"{i}.png").rename(masks / f"{i}_mask.png")
    data = segmented(tmp_path)
    for split in (data.train, data.val, data.open_test()):
        for image, mask in zip(split.images, split.targets, strict=True):
            (i,) = [n for n in range(10) if np.array_equal(image, pixels(8, 8, 3, seed=n))]
            assert np.array_equal(mask, pixels(8, 8, seed=i) > 99)


def test_masks_are_split_with_their_images_by_seed(tmp_path: Path) -> None:
    write_segmentation_folder(tmp_path, 20)
    data = segmented(tmp_path, held_out=0.2)
    splits = [data.train, data.val, data.open_test()]
    assert [len(split) for split in splits] == [12, 4, 4]
    assert len(set(contents(*splits))) == 20
    assert contents(data.val) == contents(segmented(tmp_path, held_out=0.2).val)
    assert contents(data.val) != contents(segmented(tmp_path, held_out=0.2, split_seed=1).val)


def test_masks_of_several_classes_keep_their_pixels(tmp_path: Path) -> None:
    write_segmentation_folder(tmp_path, 4)
    for i in range(4):
        Image.fromarray(np.full((8, 8), i, dtype=np.uint8)).save(tmp_path / "masks" / f"{i}.png")
    data = segmented(tmp_path, num_classes=4)
    shown = [int(t.unique()) for s in (data.train, data.val, data.open_test()) for t in s.targets]
    assert sorted(shown) == [0, 1, 2, 3]
    with pytest.raises(SamtuneError, match="3 classes are 0 to 2: correct it, or dataset.num_cl"):
        segmented(tmp_path, num_classes=3).open_test()


def test_empty_masks_are_a_mistake_unless_they_are_allowed(tmp_path: Path) -> None:
    write_segmentation_folder(tmp_path / "train", 4)
    Image.new("L", (8, 8)).save(tmp_path / "train" / "masks" / "2.png")
    with pytest.raises(SamtuneError, match="2.png has no foreground pixel"):
        segmented(tmp_path).open_test()
    assert len(segmented(tmp_path, allow_empty_masks=True).train) == 2


# --- in memory, or not


@pytest.mark.parametrize("task", ["image_folder", "segmentation_folder"])
def test_streamed_and_held_folders_give_the_same_batches(tmp_path: Path, task: str) -> None:
    if task == "image_folder":
        write_image_folder(tmp_path, {"cat": 10, "dog": 10}, size=(16, 12))
    else:
        write_segmentation_folder(tmp_path, 20, size=(16, 12))
    made = []
    for where in ("always", "never"):
        settings = {"root": tmp_path, "in_memory": where, "workers": 0, "crop_padding": 2}
        data = load_dataset(task, image_size=(8, 8), **settings)
        assert isinstance(data.train, Images if where == "always" else ImageFiles)
        assert (data.in_channels, data.image_size) == (3, (8, 8))
        train, val = data.train_batches(4, CPU), data.val_batches(4, CPU)
        made.append([*train.shuffled(0), *val.in_order()])
    for one, other in zip(*made, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_what_takes_more_than_2_gib_is_streamed_unless_it_is_told_to_fit(tmp_path: Path) -> None:
    write_image_folder(tmp_path, {"cat": 4})
    paths = image_paths(tmp_path / "cat")
    row = ImageFiles(paths, (1, IN_MEMORY_BYTES // 12), labels=[0] * 4)  # 4 images, 3 channels
    assert 2 * 2**30 - 12 < row.nbytes <= 2 * 2**30 == IN_MEMORY_BYTES
    more = ImageFiles(paths, (1, IN_MEMORY_BYTES // 12 + 1), labels=[0] * 4)
    assert held(more, "auto") is more
    small = ImageFiles(paths, (8, 8), labels=[0] * 4)
    assert held(small, "never") is small
    assert isinstance(held(small, "auto"), Images)


@pytest.mark.parametrize(("limit", "kind"), [(4 * 192, Images), (4 * 192 - 1, ImageFiles)])
def test_the_limit_itself_still_fits_and_always_overrules_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, kind: type
) -> None:
    write_image_folder(tmp_path, {"cat": 4})
    monkeypatch.setattr(file_splits, "IN_MEMORY_BYTES", limit)
    files = ImageFiles(image_paths(tmp_path / "cat"), (8, 8), labels=[0] * 4)
    assert isinstance(held(files, "auto"), kind)
    assert isinstance(held(files, "always"), Images)


# --- mistakes


@pytest.mark.parametrize("load", [classified, segmented])
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, load: Any) -> None:
    with pytest.raises(SamtuneError, match=r"nowhere does not exist; set dataset\.root"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(("folders", "found"), [([], "none"), (["cat"], "cat")])
def test_one_class_is_not_enough(tmp_path: Path, folders: list[str], found: str) -> None:
    for name in folders:
        write_image_folder(tmp_path, {name: 1})
    with pytest.raises(SamtuneError, match=f"at least two classes, found {found}$"):
        classified(tmp_path)


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ("cats", "cat", r"class 'cat' is in .*val but not in .*train: .* Did you mean 'cats'\?"),
        ("cat", None, r"class 'cat' is in .*train but not in .*val: every split must have the sa"),
    ],
)
def test_splits_with_different_classes_are_refused(
    tmp_path: Path, train: str, val: str | None, message: str
) -> None:
    write_image_folder(tmp_path / "train", {train: 3, "dog": 3, "eel": 3})
    write_image_folder(tmp_path / "val", {"dog": 3, "eel": 3, **({val: 3} if val else {})})
    with pytest.raises(SamtuneError, match=message):
        classified(tmp_path)


def test_class_folders_without_images_are_refused(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    with pytest.raises(SamtuneError, match=f"folder {tmp_path} has no images in its class folders"):
        classified(tmp_path)


def test_a_class_without_training_images_is_named(tmp_path: Path) -> None:
    for name in ("train", "val"):
        write_image_folder(tmp_path / name, {"ant": 4, "bee": 4, "cat": 0})
    with pytest.raises(SamtuneError, match="class folder .*train/cat has no images: add some, or"):
        classified(tmp_path)
    write_image_folder(tmp_path / "train" / "cat", {"more": 1})
    assert classified(tmp_path).val.targets.tolist() == 4 * [0] + 4 * [1]  # no cat to validate


@pytest.mark.parametrize("missing", ["images", "masks"])
def test_a_folder_without_images_or_masks_is_named(tmp_path: Path, missing: str) -> None:
    write_segmentation_folder(tmp_path, 4)
    for path in (tmp_path / missing).iterdir():
        path.unlink()
    with pytest.raises(SamtuneError, match=rf"{missing} has no images \(\.jpg, "):
        segmented(tmp_path)
    (tmp_path / missing).rmdir()
    with pytest.raises(SamtuneError, match=rf"{missing} does not exist; point dataset\.root at"):
        segmented(tmp_path)


def test_images_without_a_mask_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    write_segmentation_folder(tmp_path, 6)
    for i in (4, 2):
        (tmp_path / "masks" / f"{i}.png").unlink()
    message = "2 images have no mask in .*masks, 2.png the first: add 2_mask.png, or remove the im"
    with pytest.raises(SamtuneError, match=message):
        segmented(tmp_path)


def test_endings_may_be_written_in_capitals(tmp_path: Path) -> None:
    write_segmentation_folder(tmp_path, 3)
    (tmp_path / "images" / "1.png").rename(tmp_path / "images" / "1.PNG")
    assert [path.name for path in image_paths(tmp_path / "images")] == ["0.png", "1.PNG", "2.png"]


def test_a_mask_without_an_image_does_no_harm(tmp_path: Path) -> None:
    write_segmentation_folder(tmp_path, 3)
    (tmp_path / "images" / "1.png").unlink()
    found = masks_of(image_paths(tmp_path / "images"), tmp_path / "masks")
    assert [path.name for path in found] == ["0.png", "2.png"]


def test_too_few_images_to_hold_any_out_are_refused(tmp_path: Path) -> None:
    write_segmentation_folder(tmp_path, 2)
    with pytest.raises(SamtuneError, match="too few images to hold any out"):
        segmented(tmp_path)


def test_a_damaged_image_of_a_folder_is_named(tmp_path: Path) -> None:
    write_image_folder(tmp_path, {"cat": 3, "dog": 3})
    for name in ("cat", "dog"):
        for path in (tmp_path / name).iterdir():
            path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(SamtuneError, match=r"\d+.png cannot be read .*: replace or remove it"):
        classified(tmp_path)
