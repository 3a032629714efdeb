"""A split's digest changes with what it holds, and with nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from samtune.data import Images, load_dataset
from samtune.data.augmentation import Augmentation
from samtune.data.facts import digest_of, has_masks, images_per_class
from samtune.data.streaming import ImageFiles


def _changed(split: Images, image: int) -> Images:
    images = split.images.clone()
    images[image, 3, 3, 0] += 1
    return replace(split, images=images)


def test_a_digest_is_of_every_pixel_and_target() -> None:
    data = load_dataset("digits")
    assert isinstance(data.train, Images)
    same = load_dataset("digits").train
    targets = data.train.targets.clone()
    targets[-1] = (targets[-1] + 1) % 10
    seen = [
        data.train,
        data.val,
        _changed(data.train, 0),
        _changed(data.train, len(data.train) - 1),  # beyond what is read at once
        replace(data.train, targets=targets),
        load_dataset("digits", label_noise=0.1).train,
        load_dataset("digits", split_seed=1).train,
    ]
    assert digest_of(same) == digest_of(data.train)
    assert len({digest_of(split) for split in seen}) == len(seen)


def test_the_border_of_shared_images_is_no_part_of_them() -> None:
    for name in ("digits", "digits_segmentation"):
        split = load_dataset(name).train
        assert isinstance(split, Images)
        padded = split.padded(Augmentation(crop_padding=2))
        assert padded.border == 2
        assert digest_of(padded) == digest_of(split)


def test_files_are_known_by_their_names_below_a_folder_labels_and_reading() -> None:
    def files(folder: str, last: str = "b.png", label: int = 1, size: int = 8) -> ImageFiles:
        paths = [Path(folder, "train", name) for name in ("a.png", last)]
        return ImageFiles(paths, (size, size), labels=[0, label])

    first = digest_of(files("/data"))
    assert digest_of(files("/elsewhere/data")) == first
    others = [files("/data", "c.png"), files("/data", label=2), files("/data", size=16)]
    assert len({first, *map(digest_of, others)}) == 4


def test_classes_are_counted_and_masks_are_not() -> None:
    split = load_dataset("digits").val
    counts = images_per_class(split, 10)
    assert isinstance(split, Images)
    assert counts == [int((split.targets == c).sum()) for c in range(10)]
    assert sum(counts) == 297
    files = ImageFiles([Path("a"), Path("b")], (8, 8), labels=[2, 2])
    assert images_per_class(files, 4) == [0, 0, 2, 0]
    masks = load_dataset("digits_segmentation").val
    assert has_masks(masks)
    assert images_per_class(masks, 1) == []
