"""What every registered data set must do; one that is added is tested by itself.

A data set that needs files has a writer of small ones in `files.SETTINGS`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from samtune.data import DataSplits, Images, dataset_names, load_dataset
from samtune.data.splits import Split
from samtune.data.streaming import ImageFiles
from samtune.registry import DATASETS
from tests.data.files import SETTINGS

CPU = torch.device("cpu")
Load = Callable[..., DataSplits]


def parameters(name: str) -> list[str]:
    return [p.name for p in DATASETS[name].parameters]


def those_with(parameter: str) -> list[str]:
    return [name for name in dataset_names() if parameter in parameters(name)]


@pytest.fixture(params=dataset_names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def load(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads the small data set of this name."""
    settings = SETTINGS[name](tmp_path, monkeypatch) if name in SETTINGS else {}
    return lambda **more: load_dataset(name, **settings, **more)


def all_batches(data: DataSplits) -> list[tuple[Tensor, Tensor]]:
    train, val = data.train_batches(8, CPU), data.val_batches(8, CPU)
    return [*train.shuffled(3), *val.in_order()]


def assert_same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> None:
    for (images, targets), (images2, targets2) in zip(one, other, strict=True):
        assert torch.equal(images, images2)
        assert torch.equal(targets, targets2)


def contents(split: Split) -> list[bytes]:
    images = split.read_all()[0] if isinstance(split, ImageFiles) else split.images
    return contents_of(images)


def contents_of(images: Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


def test_every_parameter_is_described(name: str) -> None:
    assert [p.name for p in DATASETS[name].parameters if not p.description] == []
    assert DATASETS[name].summary.endswith(".")


def test_a_parameter_that_is_none_is_refused(load: Load) -> None:
    with pytest.raises(ValueError, match="no_such_parameter"):
        load(no_such_parameter=1)


def test_splits_are_what_they_are_said_to_be(name: str, load: Load) -> None:
    data = load()
    assert data.task == DATASETS[name].task
    assert len(data.mean) == len(data.std) == data.in_channels
    assert all(0 < mean < 1 for mean in data.mean)
    assert all(0 < std <= 0.5 for std in data.std)  # no deviation in [0, 1] is larger
    assert len(set(data.classes)) in (0, data.num_classes)
    for split in (data.train, data.val, data.open_test()):
        assert len(split) > 0
        assert split.size == data.image_size
        assert split.channels == data.in_channels
        images, targets = (
            (split.images, split.targets) if isinstance(split, Images) else split.read_all()
        )
        assert images.dtype == torch.uint8
        assert images.shape == (len(split), *data.image_size, data.in_channels)
        assert 0 <= targets.min() <= targets.max() < max(2, data.num_classes)
        if data.task == "segmentation":
            assert (targets.dtype, targets.shape) == (torch.uint8, images.shape[:3])
        else:
            assert (targets.dtype, targets.shape) == (torch.int64, images.shape[:1])


def test_no_image_is_in_two_splits(name: str, load: Load) -> None:
    data = load()
    train, val, test = (set(contents(s)) for s in (data.train, data.val, data.open_test()))
    assert not train & val
    assert not train & test
    assert not val & test


def test_loading_twice_gives_the_same_batches(load: Load) -> None:
    batches = all_batches(load())
    torch.manual_seed(1234)
    assert_same(all_batches(load()), batches)
    for images, targets in batches:
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert images.isfinite().all()
        assert len(images) == len(targets)


def test_a_shared_copy_gives_the_same_batches_and_holds_no_image(load: Load) -> None:
    data = load()
    buffers: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(data.to_share(), protocol=5, buffer_callback=buffers.append)
    assert len(stream) < 5000
    memory = [bytearray(buffer.raw()) for buffer in buffers]
    shared = pickle.loads(stream, buffers=memory)
    assert_same(all_batches(shared), all_batches(data))
    with pytest.raises(RuntimeError, match="test split is not shared"):
        shared.open_test()


@pytest.mark.parametrize("name", those_with("crop_padding"))
def test_training_images_are_augmented_and_validation_images_are_not(name: str, load: Load) -> None:
    off = {"crop_padding": 0, **({"flip": False} if "flip" in parameters(name) else {})}
    plain, augmented = load(**off), load(crop_padding=2)
    count = len(plain.train)
    (one, _), (other, _) = (
        next(data.train_batches(count, CPU).shuffled(0)) for data in (plain, augmented)
    )
    assert not torch.equal(one, other)
    (in_order, _) = next(augmented.train_batches(count, CPU).in_order())
    assert sorted(contents_of(one)) == sorted(contents_of(in_order))  # the same images, moved
    assert_same(*(list(data.val_batches(8, CPU).in_order()) for data in (plain, augmented)))


@pytest.mark.parametrize("name", those_with("padding"))
@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_the_padding_is_the_one_that_was_asked_for(name: str, padding: str, load: Load) -> None:
    assert load(crop_padding=2, padding=padding).augmentation.padding == padding


@pytest.mark.parametrize("name", those_with("cutout"))
def test_a_cut_out_square_is_seen_in_training_images(name: str, load: Load) -> None:
    def means(**settings: int) -> int:
        batches = load(crop_padding=0, **settings).train_batches(8, CPU).shuffled(0)
        return sum(int((images == 0).all(1).sum()) for images, _ in batches)

    assert means(cutout=0) == 0
    assert means(cutout=3) > 9


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        (name, setting)
        for setting in ({"random_resized_crop": 0.3}, {"color_jitter": 0.5}, {"randaugment_ops": 2})
        for name in those_with(next(iter(setting)))
    ],
)
def test_each_augmentation_reaches_training_images_alone(
    name: str, setting: dict[str, float], load: Load
) -> None:
    def first(data: DataSplits) -> Tensor:
        return next(data.train_batches(len(data.train), CPU).shuffled(0))[0]

    plain, augmented = load(), load(**setting)
    assert not torch.equal(first(plain), first(augmented))
    assert torch.equal(first(augmented), first(load(**setting)))
    assert_same(*(list(data.val_batches(8, CPU).in_order()) for data in (plain, augmented)))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"random_resized_crop": 0.0}, "greater than 0"),
        ({"color_jitter": 1.5}, "less than or equal to 1"),
        ({"randaugment_ops": -1}, "greater than or equal to 0"),
        ({"randaugment_magnitude": 31}, "less than or equal to 30"),
    ],
)
@pytest.mark.parametrize("name", ["digits"])
def test_an_augmentation_out_of_range_is_refused(
    setting: dict[str, float], message: str, load: Load
) -> None:
    with pytest.raises(ValueError, match=message):
        load(**setting)


def test_only_classification_has_randaugment_which_moves_no_mask(name: str) -> None:
    is_segmentation = DATASETS[name].task == "segmentation"
    assert not (is_segmentation and "randaugment_ops" in parameters(name))


@pytest.mark.parametrize("name", those_with("label_noise"))
def test_wrong_labels_are_the_training_splits_alone(load: Load) -> None:
    clean, noisy = load(), load(label_noise=0.4)
    wrong = int((clean.train.targets != noisy.train.targets).sum())
    assert wrong == round(0.4 * len(clean.train))
    assert torch.equal(clean.train.images, noisy.train.images)
    assert torch.equal(clean.val.targets, noisy.val.targets)
    assert torch.equal(clean.open_test().targets, noisy.open_test().targets)


@pytest.mark.parametrize("name", those_with("split_seed"))
def test_another_split_seed_is_another_split(load: Load) -> None:
    assert set(contents(load().val)) == set(contents(load(split_seed=0).val))
    assert set(contents(load().val)) != set(contents(load(split_seed=1).val))


@pytest.mark.parametrize("name", those_with("in_memory"))
def test_streamed_batches_are_those_from_memory(load: Load) -> None:
    held, streamed = load(in_memory="always"), load(in_memory="never", workers=0)
    assert isinstance(held.train, Images)
    assert isinstance(streamed.train, ImageFiles)
    assert_same(all_batches(held), all_batches(streamed))
