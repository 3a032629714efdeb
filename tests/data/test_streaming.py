"""Streaming reads what memory would hold, whatever the number of workers, and names what is bad."""

from __future__ import annotations

import multiprocessing
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from samtune.data.augmentation import Augmentation
from samtune.data.batches import InMemoryBatches
from samtune.data.streaming import ImageFiles, MaskReading, StreamedBatches
from samtune.errors import SamtuneError
from tests.data.files import blob, pixels

SIZE = (6, 9)
SETTINGS: dict[str, Any] = {
    "mean": (0.5, 0.4, 0.3),
    "std": (0.25, 0.3, 0.35),
    "device": torch.device("cpu"),
}
AUGMENTATION = Augmentation(
    crop_padding=2,
    flip=True,
    cutout=3,
    padding="reflect",
    random_resized_crop=0.5,
    color_jitter=0.4,
)


def write(folder: Path, count: int, size: tuple[int, int] = SIZE, suffix: str = ".png") -> None:
    for i in range(count):
        Image.fromarray(pixels(*size, 3, seed=i)).save(folder / f"{i}{suffix}")
        Image.fromarray(pixels(*size, seed=100 + i) % 3).save(folder / f"{i}_mask.png")


def files(folder: Path, count: int, masked: bool = False, suffix: str = ".png") -> ImageFiles:
    paths = [folder / f"{i}{suffix}" for i in range(count)]
    if masked:
        masks = [folder / f"{i}_mask.png" for i in range(count)]
        return ImageFiles(paths, SIZE, masks=masks, mask_reading=MaskReading(3))
    return ImageFiles(paths, SIZE, labels=list(range(count)))


def streamed(files: ImageFiles, augmentation: Augmentation = AUGMENTATION) -> StreamedBatches:
    return StreamedBatches(files, batch_size=4, augmentation=augmentation, **SETTINGS)


def epochs(batches: StreamedBatches | InMemoryBatches) -> list[tuple[Tensor, Tensor]]:
    return [*batches.shuffled(0), *batches.shuffled(1), *batches.in_order()]


def assert_same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> None:
    for (images, targets), (images2, targets2) in zip(one, other, strict=True):
        assert torch.equal(images, images2)
        assert torch.equal(targets, targets2)


# --- batches


@pytest.mark.parametrize("masked", [False, True])
def test_streamed_batches_are_those_of_the_same_images_in_memory(
    tmp_path: Path, masked: bool
) -> None:
    write(tmp_path, 10)
    images = torch.from_numpy(np.stack([pixels(*SIZE, 3, seed=i) for i in range(10)]))
    masks = torch.from_numpy(np.stack([pixels(*SIZE, seed=100 + i) % 3 for i in range(10)]))
    augmentation = replace(AUGMENTATION, randaugment_ops=0 if masked else 2)
    held = InMemoryBatches(
        images,
        masks if masked else torch.arange(10),
        batch_size=4,
        augmentation=augmentation,
        **SETTINGS,
    )
    made = streamed(files(tmp_path, 10, masked), augmentation)
    assert len(made) == 10
    assert_same(epochs(made), epochs(held))
    assert [len(targets) for _, targets in made.shuffled(0)] == [4, 4]
    assert [len(targets) for _, targets in made.in_order()] == [4, 4, 2]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_no_number(tmp_path: Path, workers: int) -> None:
    write(tmp_path, 10)
    alone = files(tmp_path, 10, masked=True)
    helped = replace(alone, workers=workers)
    assert_same(epochs(streamed(alone)), epochs(streamed(helped)))


def test_fewer_images_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    write(tmp_path, 3)
    ((images, targets),) = streamed(files(tmp_path, 3)).shuffled(0)
    assert len(images) == 3
    assert sorted(targets.tolist()) == [0, 1, 2]


def test_streaming_leaves_torchs_generator_alone(tmp_path: Path) -> None:
    write(tmp_path, 4)
    state = torch.get_rng_state()
    epochs(streamed(replace(files(tmp_path, 4), workers=1)))
    assert torch.equal(torch.get_rng_state(), state)


def test_workers_end_with_their_epoch_however_it_is_left(tmp_path: Path) -> None:
    write(tmp_path, 10)
    made = streamed(replace(files(tmp_path, 10), workers=2))
    assert len(list(made.in_order())) == 3
    assert multiprocessing.active_children() == []
    left_early = made.in_order()
    next(left_early)
    assert len(multiprocessing.active_children()) == 2
    left_early.close()
    assert multiprocessing.active_children() == []


def test_no_files_make_no_batches(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images"):
        streamed(files(tmp_path, 0))


# --- reading


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_an_image_is_resized_as_pillow_does_it(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, 2, (20, 30), suffix)
    images, labels = files(tmp_path, 2, suffix=suffix).read([1])
    with Image.open(tmp_path / f"1{suffix}") as image:
        expected = image.resize((9, 6), Image.Resampling.BILINEAR)  # width first
    assert np.array_equal(images[0].numpy(), np.asarray(expected))
    assert labels.tolist() == [1]


def test_a_mask_is_resized_to_its_nearest_pixels(tmp_path: Path) -> None:
    write(tmp_path, 1, (18, 27))
    _, masks = files(tmp_path, 1, masked=True).read([0])
    # A third of the size: of each three by three pixels the one in the middle.
    assert np.array_equal(masks[0].numpy(), (pixels(18, 27, seed=100) % 3)[1::3, 1::3])


def test_reading_everything_keeps_the_order(tmp_path: Path) -> None:
    write(tmp_path, 20)
    for masked in (False, True):
        chosen = files(tmp_path, 20, masked)
        all_images, all_targets = chosen.read_all()
        images, targets = chosen.read(range(20))
        assert torch.equal(all_images, images)
        assert torch.equal(all_targets, targets)


@pytest.mark.parametrize(("channels", "pixel"), [(1, [76]), (3, [255, 0, 0])])
def test_one_channel_is_grey_and_three_are_colour(
    tmp_path: Path, channels: int, pixel: list[int]
) -> None:
    Image.new("RGB", SIZE[::-1], "red").save(tmp_path / "0.png")  # 0.299 of 255 in grey
    images, _ = replace(files(tmp_path, 1), channels=channels).read([0])
    assert images.shape == (1, *SIZE, channels)
    assert images[0, 0, 0].tolist() == pixel


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK"])
def test_an_image_of_any_mode_reads_as_colour(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "0.tif"
    Image.new("RGB", SIZE[::-1], "white").convert(mode).save(path)
    images, _ = files(tmp_path, 1, suffix=".tif").read([0])
    assert images.shape == (1, *SIZE, 3)
    assert images.unique().tolist() == [255]


@pytest.mark.parametrize(
    ("dtype", "suffix"), [("uint16", ".png"), ("int32", ".tif"), ("f4", ".tif")]
)
def test_an_image_of_more_than_8_bits_is_refused_and_not_cut_off_at_255(
    tmp_path: Path, dtype: str, suffix: str
) -> None:
    deep = Image.fromarray(np.full(SIZE, 40_000, dtype=dtype))
    deep.save(tmp_path / f"0{suffix}")
    with pytest.raises(SamtuneError, match=f"0{suffix} has more than 8 bits .*: convert it to 8"):
        files(tmp_path, 1, suffix=suffix).read([0])


def test_files_are_chosen_with_their_targets(tmp_path: Path) -> None:
    chosen = files(tmp_path, 5)[[3, 1]]
    assert [path.name for path in chosen.paths] == ["3.png", "1.png"]
    assert chosen.labels == [3, 1]
    masked = files(tmp_path, 5, masked=True)[torch.tensor([3, 1])]
    assert [path.name for path in masked.masks] == ["3_mask.png", "1_mask.png"]
    assert masked.labels == ()


def test_the_memory_of_all_images_is_known_beforehand(tmp_path: Path) -> None:
    write(tmp_path, 3)
    assert files(tmp_path, 3).nbytes == files(tmp_path, 3).read_all()[0].nbytes
    masked = files(tmp_path, 3, masked=True)
    assert masked.nbytes == sum(t.nbytes for t in masked.read_all())


# --- masks


def read_mask(tmp_path: Path, values: np.ndarray[Any, Any], reading: MaskReading) -> Tensor:
    write(tmp_path, 1)
    Image.fromarray(values).save(tmp_path / "0_mask.png")
    return replace(files(tmp_path, 1, masked=True), mask_reading=reading).read([0])[1][0]


def test_a_mask_of_one_class_is_foreground_wherever_it_is_not_0(tmp_path: Path) -> None:
    values = np.zeros(SIZE, dtype=np.uint8)
    values[1, 2], values[3, 4] = 1, 255
    mask = read_mask(tmp_path, values, MaskReading(1))
    assert mask.dtype == torch.uint8
    assert mask.nonzero().tolist() == [[1, 2], [3, 4]]
    assert mask.max() == 1


def test_classes_count_from_the_first(tmp_path: Path) -> None:
    values = pixels(*SIZE) % 3
    mask = read_mask(tmp_path, values + 1, MaskReading(3, first_class=1))
    assert np.array_equal(mask.numpy(), values)


def test_the_pixels_of_a_palette_are_classes_whatever_their_colours(tmp_path: Path) -> None:
    write(tmp_path, 1)
    mask = Image.fromarray(pixels(*SIZE) % 3)
    mask.putpalette([200, 0, 0, 0, 0, 0, 0, 90, 0])
    mask.save(tmp_path / "0_mask.png")
    read = files(tmp_path, 1, masked=True).read([0])[1][0]
    assert np.array_equal(read.numpy(), pixels(*SIZE) % 3)


@pytest.mark.parametrize(("add", "first", "last"), [(0, 1, 3), (2, 1, 3), (1, 0, 2)])
def test_a_pixel_that_is_no_class_is_refused(
    tmp_path: Path, add: int, first: int, last: int
) -> None:
    values = (np.arange(54, dtype=np.uint8) % 3).reshape(SIZE) + np.uint8(add)
    message = f"0_mask.png has pixels from {add} to {add + 2}, but its 3 classes are {first} to"
    with pytest.raises(SamtuneError, match=f"{message} {last}: correct it"):
        read_mask(tmp_path, values, MaskReading(3, first_class=first))


def test_a_mask_without_foreground_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    values = np.zeros(SIZE, dtype=np.uint8)
    with pytest.raises(SamtuneError, match="0_mask.png has no foreground pixel.*allow_empty_masks"):
        read_mask(tmp_path, values, MaskReading(1))
    assert not read_mask(tmp_path, values, MaskReading(1, allow_empty=True)).any()


def test_a_mask_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    message = "0_mask.png is 6x9 but its image 0.png is 9x6: both must have the same size"
    with pytest.raises(SamtuneError, match=message):
        read_mask(tmp_path, blob(9, 6), MaskReading(1))


# --- damaged files


def damage(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        path.write_text("<html>not an image</html>")


@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "not an image"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(tmp_path: Path, how: str, suffix: str, workers: int) -> None:
    write(tmp_path, 8, (60, 90), suffix)
    damage(tmp_path / f"5{suffix}", how)
    chosen = replace(files(tmp_path, 8, suffix=suffix), workers=workers)
    path = re.escape(str(tmp_path / f"5{suffix}"))
    message = rf"^image {path} cannot be read \(\w+\): replace or remove it$"
    with pytest.raises(SamtuneError, match=message):
        list(streamed(chosen).in_order())
    with pytest.raises(SamtuneError, match=message):
        list(streamed(chosen).shuffled(0))
    with pytest.raises(SamtuneError, match=message):
        chosen.read_all()


@pytest.mark.parametrize("part", ["pixels", "name of a chunk"])
def test_a_png_with_damaged_bytes_inside_is_named(tmp_path: Path, part: str) -> None:
    write(tmp_path, 1, (200, 300))
    path = tmp_path / "0.png"
    content = bytearray(path.read_bytes())
    second = content.index(b"IDAT", content.index(b"IDAT") + 4)  # pixels come in several chunks
    place = second + (100 if part == "pixels" else 0)
    content[place : place + 50] = bytes(50)
    path.write_bytes(content)
    with pytest.raises(SamtuneError, match=r"0\.png cannot be read .*: replace or remove it"):
        files(tmp_path, 1).read([0])


@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "not an image"])
def test_a_damaged_mask_is_named(tmp_path: Path, how: str) -> None:
    write(tmp_path, 1, (60, 90))
    damage(tmp_path / "0_mask.png", how)
    with pytest.raises(SamtuneError, match="0_mask.png cannot be read .*: replace or remove it"):
        files(tmp_path, 1, masked=True).read([0])
