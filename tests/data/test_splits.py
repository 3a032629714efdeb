"""Splits, wrong labels, and what other processes get to see of a data set."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from samtune.data.augmentation import Augmentation
from samtune.data.splits import DataSplits, Images, stratified_split, with_label_noise

CPU = torch.device("cpu")
PLAIN = Augmentation()


def pictures(count: int, side: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    shape = (count, side, side, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def splits(masked: bool = False, augmentation: Augmentation = PLAIN) -> DataSplits:
    def draw(count: int) -> Images:
        images = pictures(count)
        return Images(images, images[..., 0].clone() if masked else torch.arange(count))

    return DataSplits(
        task="segmentation" if masked else "classification",
        num_classes=256,
        train=draw(20),
        val=draw(10),
        open_test=lambda: draw(5),
        mean=(0.5, 0.4, 0.3),
        std=(0.25, 0.3, 0.35),
        augmentation=augmentation,
    )


def passed_on(value: Any) -> tuple[Any, int, list[bytearray]]:
    """What another process would get: the copy, the size of its pickle, the memory it shares."""
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    memory = [bytearray(buffer.raw()) for buffer in buffers]
    return pickle.loads(stream, buffers=memory), len(stream), memory


def all_batches(data: DataSplits) -> list[tuple[Tensor, Tensor]]:
    train, val = data.train_batches(8, CPU), data.val_batches(8, CPU)
    return [*train.shuffled(0), *train.shuffled(1), *train.in_order(), *val.in_order()]


def assert_same_batches(one: DataSplits, other: DataSplits) -> None:
    for (images, targets), (images2, targets2) in zip(
        all_batches(one), all_batches(other), strict=True
    ):
        assert torch.equal(images, images2)
        assert torch.equal(targets, targets2)


def assert_without_a_copy(shared: DataSplits, memory: list[bytearray]) -> None:
    """That batches made before the shared memory is blackened are black."""
    train, val = shared.train_batches(20, CPU), shared.val_batches(10, CPU)
    for block in memory:
        block[:] = bytes(len(block))
    black = torch.tensor([-0.5 / 0.25, -0.4 / 0.3, -0.3 / 0.35])[:, None, None]
    for images, targets in (*train.in_order(), *val.in_order()):
        torch.testing.assert_close(images, black.expand(len(images), 3, 6, 6))
        assert not targets.any()


# --- splits


@pytest.mark.parametrize("seed", range(5))
def test_splits_are_disjoint_and_of_the_asked_sizes(seed: int) -> None:
    labels = torch.arange(100) % 7
    parts = stratified_split(labels, [60, 25, 10], seed)
    assert [len(part) for part in parts] == [60, 25, 10]
    together = torch.cat(parts)
    assert len(together.unique()) == 95
    assert together.min() >= 0
    assert together.max() < 100


@pytest.mark.parametrize("seed", range(10))
def test_a_class_is_within_one_image_of_its_share(seed: int) -> None:
    labels = torch.arange(1000) % 10  # a hundred of each
    parts = stratified_split(labels, [733, 200, 67], seed)
    for part, share in zip(parts, (73.3, 20, 6.7), strict=True):
        for count in part_counts(labels, part, 10):
            assert abs(count - share) < 1


@pytest.mark.parametrize("seed", range(10))
def test_a_class_is_within_two_images_of_its_share_where_classes_differ_in_size(seed: int) -> None:
    labels = torch.tensor([0] * 200 + [1] * 100 + [2] * 60 + [3] * 37 + [4] * 3)
    for part in stratified_split(labels, [250, 100, 50], seed):
        for found, of_all in zip(part_counts(labels, part, 5), (200, 100, 60, 37, 3), strict=True):
            assert abs(found - of_all * len(part) / 400) < 2


def part_counts(labels: Tensor, part: Tensor, num_classes: int) -> list[int]:
    return torch.bincount(labels[part], minlength=num_classes).tolist()


def test_a_split_depends_on_its_seed_alone() -> None:
    labels = torch.arange(100) % 7
    first = stratified_split(labels, [70, 30], seed=1)
    torch.manual_seed(5)
    again, other = stratified_split(labels, [70, 30], 1), stratified_split(labels, [70, 30], 2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])


def test_a_split_mixes_the_images_of_a_class() -> None:
    labels = torch.zeros(100, dtype=torch.long)
    seen = torch.cat([stratified_split(labels, [90, 10], seed)[1] for seed in range(60)])
    assert len(seen.unique()) > 95  # 600 draws of 100 images


def test_a_split_keeps_the_order_of_the_images() -> None:
    for part in stratified_split(torch.arange(100) % 7, [70, 30], 0):
        assert torch.equal(part, part.sort().values)


def test_splits_larger_than_the_data_are_refused() -> None:
    with pytest.raises(ValueError, match=r"splits of \[8, 3\] need more than the 10 images"):
        stratified_split(torch.zeros(10, dtype=torch.long), [8, 3], 0)


# --- wrong labels


@pytest.mark.parametrize("share", [0.0, 0.1, 0.333, 0.5, 0.999])
@pytest.mark.parametrize("num_classes", [2, 10])
def test_exactly_the_share_of_labels_is_wrong(share: float, num_classes: int) -> None:
    clean = Images(pictures(200), torch.arange(200) % num_classes)
    noisy = with_label_noise(clean, share, num_classes, seed=3)
    assert int((noisy.targets != clean.targets).sum()) == round(share * 200)
    assert noisy.targets.min() >= 0
    assert noisy.targets.max() < num_classes
    assert torch.equal(noisy.images, clean.images)
    assert torch.equal(clean.targets, torch.arange(200) % num_classes)  # left as it was


def test_a_wrong_label_is_every_other_class_equally_often() -> None:
    clean = Images(pictures(5000, side=1), torch.full((5000,), 2))
    noisy = with_label_noise(clean, 0.9, 4, seed=0)
    counts = torch.bincount(noisy.targets, minlength=4).tolist()
    assert counts[2] == 500
    assert all(1400 < counts[c] < 1600 for c in (0, 1, 3))


def test_wrong_labels_depend_on_their_seed_alone() -> None:
    clean = Images(pictures(100), torch.arange(100) % 10)
    first = with_label_noise(clean, 0.5, 10, seed=1).targets
    torch.manual_seed(5)
    assert torch.equal(with_label_noise(clean, 0.5, 10, seed=1).targets, first)
    assert not torch.equal(with_label_noise(clean, 0.5, 10, seed=2).targets, first)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_of_wrong_labels_is_at_least_0_and_below_1(share: float) -> None:
    with pytest.raises(ValueError, match="label_noise must be at least 0 and below 1"):
        with_label_noise(Images(pictures(4), torch.zeros(4).long()), share, 10, 0)


# --- images


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        (torch.zeros(4, 6, 6, 3), torch.zeros(4).long(), "must be uint8"),
        (torch.zeros(4, 6, 6, dtype=torch.uint8), torch.zeros(4).long(), r"\(N, H, W, C\)"),
        (pictures(4), torch.zeros(3).long(), "4 images but 3 targets"),
        (pictures(4), torch.zeros(4, 6, 5, dtype=torch.uint8), "masks must have the size"),
    ],
)
def test_what_are_no_images_with_targets_is_refused(
    images: Tensor, targets: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Images(images, targets)


def test_images_are_chosen_with_their_targets() -> None:
    chosen = Images(pictures(10), torch.arange(10))[torch.tensor([7, 2])]
    assert chosen.targets.tolist() == [7, 2]
    assert torch.equal(chosen.images, pictures(10)[[7, 2]])
    assert len(chosen) == 2


@pytest.mark.parametrize("masked", [False, True])
def test_a_border_does_not_count_as_size(masked: bool) -> None:
    train = splits(masked).train
    assert isinstance(train, Images)
    framed = train.padded(Augmentation(crop_padding=2))
    assert framed.images.shape == (20, 10, 10, 3)
    assert framed.targets.shape == ((20, 10, 10) if masked else (20,))
    assert framed.size == framed[torch.tensor([0])].size == (6, 6)
    assert framed.channels == 3


# --- the test split, and other processes


def test_the_test_split_is_read_when_it_is_opened_and_not_before() -> None:
    opened = []
    data = replace(splits(), open_test=lambda: opened.append(1))
    all_batches(data)
    data.to_share()
    assert opened == []
    data.open_test()
    assert opened == [1]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(),
        Augmentation(flip=True, cutout=3),
        Augmentation(2, True, 3, "zero"),
        Augmentation(2, True, 3, "reflect"),
    ],
)
def test_a_shared_copy_gives_the_same_batches_bit_for_bit(
    augmentation: Augmentation, masked: bool
) -> None:
    data = splits(masked, augmentation)
    shared, _, _ = passed_on(data.to_share())
    assert_same_batches(data, shared)
    assert (shared.image_size, shared.in_channels) == ((6, 6), 3)
    assert_same_batches(data, data.to_share().to_share())  # sharing twice pads once


def test_the_shared_test_split_stays_locked() -> None:
    shared, _, _ = passed_on(splits().to_share())
    with pytest.raises(RuntimeError, match="test split is not shared"):
        shared.open_test()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(2, True, 3, "reflect")])
def test_a_shared_copy_leaves_its_images_where_they_are(
    augmentation: Augmentation, masked: bool
) -> None:
    data = splits(masked, augmentation).to_share()
    shared, size, memory = passed_on(data)
    assert size < 2000  # bytes of names and shapes, whatever the number of images
    tensors = [t for split in (data.train, data.val) for t in (split.images, split.targets)]
    assert sorted(map(len, memory)) == sorted(t.nbytes for t in tensors)
    assert_without_a_copy(shared, memory)


def test_images_in_another_order_in_memory_are_shared_all_the_same() -> None:
    planes = pictures(20).permute(0, 3, 1, 2).contiguous()  # channels first, as CIFAR's files are
    images = Images(planes.permute(0, 2, 3, 1), torch.arange(20))
    data = replace(splits(), train=images, val=images)
    shared, size, memory = passed_on(data.to_share())
    assert size < 2000
    assert_same_batches(data, shared)
    assert_without_a_copy(shared, memory)


def test_a_read_only_shared_copy_is_used_without_a_warning(recwarn) -> None:
    torch.set_warn_always(True)  # else torch warns once a process
    buffers: list[pickle.PickleBuffer] = []
    data = splits(augmentation=Augmentation(2)).to_share()
    stream = pickle.dumps(data, protocol=5, buffer_callback=buffers.append)
    shared = pickle.loads(stream, buffers=[bytes(buffer.raw()) for buffer in buffers])
    torch.set_warn_always(False)
    assert_same_batches(shared, splits(augmentation=Augmentation(2)))
    assert list(recwarn) == []
