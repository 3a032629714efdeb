"""What a batch shows: torchvision's own transforms are the oracle, for every draw there is."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from torch import Tensor

from samtune.data.augmentation import Augmentation, Padding, padded
from samtune.data.batches import InMemoryBatches

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # no byte is exactly the mean
HEIGHT, WIDTH = 6, 7


def pictures(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    shape = (count, HEIGHT, WIDTH, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def batches(
    images: Tensor, targets: Tensor | None = None, batch_size: int = 8, **settings: Any
) -> InMemoryBatches:
    return InMemoryBatches(
        images,
        torch.arange(len(images)) if targets is None else targets,
        batch_size=batch_size,
        mean=MEAN,
        std=STD,
        device=torch.device("cpu"),
        **settings,
    )


def normalised(images: Tensor) -> Tensor:
    """Bytes (..., H, W, C) as torchvision normalises them, (..., C, H, W)."""
    return F.normalize(images.movedim(-1, -3).float() / 255, MEAN, STD)


def crops(image: Tensor, pad: int, padding: Padding) -> dict[tuple[int, int, bool], Tensor]:
    """What torchvision makes of one image (C, H, W): every crop, as it is and mirrored."""
    mode = "constant" if padding == "zero" else "reflect"
    framed = F.pad(image, [pad], padding_mode=mode)
    places = product(range(2 * pad + 1), range(2 * pad + 1))
    cropped = {place: F.crop(framed, *place, HEIGHT, WIDTH) for place in places}
    return {
        (*place, mirrored): F.hflip(crop) if mirrored else crop
        for place, crop in cropped.items()
        for mirrored in (False, True)
    }


def epochs(batches: InMemoryBatches, seeds: int) -> list[tuple[Tensor, Tensor]]:
    """Every image with its target, of several epochs."""
    return [
        pair
        for seed in range(seeds)
        for images, targets in batches.shuffled(seed)
        for pair in zip(images, targets, strict=True)
    ]


@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_an_augmented_image_is_torchvisions_crop_flipped_and_normalised(padding: Padding) -> None:
    images = pictures(8)
    augmentation = Augmentation(crop_padding=2, flip=True, padding=padding)
    expected = [
        torch.stack([normalised(c.permute(1, 2, 0)) for c in crops(i, 2, padding).values()])
        for i in images.permute(0, 3, 1, 2)
    ]
    found = []
    for image, label in epochs(batches(images, augmentation=augmentation), seeds=200):
        near = (expected[label] - image).abs().amax((1, 2, 3)) < 1e-5
        assert near.sum() == 1
        found.append(int(near.nonzero()))
    counts = np.bincount(found, minlength=50)  # 5 x 5 places, mirrored and not
    assert counts.min() > 12  # of 1600: 32 each, give or take 6
    assert counts.max() < 52


def test_a_flip_without_a_crop_mirrors_about_half_of_the_images() -> None:
    images = pictures(8)
    mirrored = 0
    for image, label in epochs(batches(images, augmentation=Augmentation(flip=True)), seeds=50):
        plain = normalised(images[label])
        if not torch.allclose(image, plain, atol=1e-5):
            torch.testing.assert_close(image, F.hflip(plain), rtol=0, atol=1e-5)
            mirrored += 1
    assert 150 < mirrored < 250  # of 400: 200 give or take 10


def test_without_augmentation_a_shuffled_image_is_normalised_and_nothing_else() -> None:
    images = pictures(8)
    for image, label in epochs(batches(images), seeds=2):
        torch.testing.assert_close(image, normalised(images[label]), rtol=0, atol=1e-6)


def test_a_cut_out_square_is_the_mean_colour_and_the_rest_is_as_it_was() -> None:
    images = pictures(8)
    size, uncut = 4, 0
    rows, columns = torch.zeros(HEIGHT), torch.zeros(WIDTH)
    shown = epochs(batches(images, augmentation=Augmentation(cutout=size)), seeds=250)
    for image, label in shown:
        cut = (image == 0).all(0)
        assert torch.equal(cut, (image == 0).any(0))  # all channels, or none of them
        across, down = cut.any(0), cut.any(1)
        assert torch.equal(cut, down[:, None] & across)  # a rectangle
        assert down.sum() <= size
        assert across.sum() <= size
        kept = normalised(images[label])
        torch.testing.assert_close(image, kept.masked_fill(cut, 0), rtol=0, atol=1e-6)
        uncut += not cut.any()
        rows += down
        columns += across
    assert 900 < uncut < 1100  # of 2000
    # The square starts in each row from -2 to 3, and three of these six meet the first row; it
    # starts in each column from -2 to 4, and two of these seven meet the last.
    for counts, meeting in ((rows, [3, 4, 4, 4, 3, 2]), (columns, [3, 4, 4, 4, 4, 3, 2])):
        expected = torch.tensor(meeting) / len(counts)
        torch.testing.assert_close(counts / (2000 - uncut), expected, rtol=0, atol=0.06)


@pytest.mark.parametrize("size", [1, 3, 6, 20])
def test_a_square_of_any_size_leaves_about_half_of_the_images_alone(size: int) -> None:
    shown = epochs(batches(pictures(8), augmentation=Augmentation(cutout=size)), seeds=100)
    areas = np.array([int((image == 0).all(0).sum()) for image, _ in shown])
    assert areas.max() == min(size, HEIGHT) * min(size, WIDTH)
    assert 330 < (areas == 0).sum() < 470  # of 800


@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_a_mask_moves_with_its_image_and_is_never_cut_out(padding: Padding) -> None:
    images = pictures(8)
    masks = images[..., 0].clone()  # the red channel: what a mask shows, its image shows
    augmentation = Augmentation(crop_padding=2, flip=True, cutout=3, padding=padding)
    cut_pixels = 0
    seen = set()
    for image, mask in epochs(batches(images, masks, augmentation=augmentation), seeds=20):
        assert mask.dtype == torch.uint8
        cut = (image == 0).all(0)
        red = ((image[0] * STD[0] + MEAN[0]) * 255).round().to(torch.uint8)
        assert torch.equal(red[~cut], mask[~cut])
        cut_pixels += int(cut.sum())
        candidates = [c for m in masks for c in crops(m[None], 2, padding).values()]
        assert any(torch.equal(mask, c[0]) for c in candidates)
        seen.add(mask.numpy().tobytes())
    assert cut_pixels > 0
    assert len(seen) > 80  # of 160 with 50 different crops of each of eight masks


def test_batches_are_float32_and_channels_last() -> None:
    made = batches(pictures(9), augmentation=Augmentation(1, True, 2))
    for images, _ in (*made.shuffled(0), *made.in_order()):
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_the_same_seed_is_the_same_epoch_and_another_seed_another() -> None:
    made = batches(pictures(16), augmentation=Augmentation(1, True, 2))

    def epoch(seed: int) -> tuple[Tensor, Tensor]:
        images, targets = zip(*made.shuffled(seed), strict=True)
        return torch.cat(images), torch.cat(targets)

    (images, targets), again, other = epoch(0), epoch(0), epoch(1)
    assert torch.equal(images, again[0])
    assert torch.equal(targets, again[1])
    assert not torch.equal(targets, other[1])
    # the same order does not mean the same crops: image for image the epochs differ
    assert not torch.equal(images[targets.argsort()], other[0][other[1].argsort()])


def test_an_epoch_draws_from_its_seed_alone() -> None:
    made = batches(pictures(16), augmentation=Augmentation(1, True, 2))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = next(made.shuffled(0))[0]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    np.random.seed(1)
    assert torch.equal(next(made.shuffled(0))[0], first)


def test_an_epoch_shows_no_image_twice_and_drops_the_last_batch_if_it_is_not_full() -> None:
    made = batches(pictures(20), batch_size=8)
    sizes, left_out = [], []
    for seed in range(20):
        shown = [targets for _, targets in made.shuffled(seed)]
        sizes += [len(targets) for targets in shown]
        labels = torch.cat(shown).tolist()
        assert len(set(labels)) == 16
        left_out.append(frozenset(range(20)) - set(labels))
    assert set(sizes) == {8}
    assert len(set(left_out)) > 10  # not always the same four


def test_a_split_smaller_than_a_batch_is_one_batch() -> None:
    ((images, targets),) = batches(pictures(5), batch_size=8).shuffled(0)
    assert len(images) == 5
    assert sorted(targets.tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_in_order_is_every_image_once_as_it_is(padding: Padding) -> None:
    images = pictures(20)
    masks = images[..., 0].clone()
    augmentation = Augmentation(2, True, 3, padding)
    for targets in (torch.arange(20), masks):
        made = batches(images, targets, augmentation=augmentation)
        parts = list(made.in_order())
        assert [len(part) for part, _ in parts] == [8, 8, 4]
        shown = torch.cat([part for part, _ in parts])
        torch.testing.assert_close(shown, normalised(images), rtol=0, atol=1e-6)
        assert torch.equal(torch.cat([part for _, part in parts]), targets)
        assert len(made) == 20


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 3)])
@pytest.mark.parametrize("mode", ["zero", "reflect"])
def test_padding_is_numpys(mode: Padding, shape: tuple[int, ...]) -> None:
    images = torch.arange(2 * 6 * 7 * 3, dtype=torch.uint8).view(2, 6, 7, 3)
    images = images if len(shape) == 3 else images[..., 0]
    widths = [(0, 0), (3, 3), (3, 3), (0, 0)][: images.dim()]
    expected = np.pad(images.numpy(), widths, mode="constant" if mode == "zero" else "reflect")
    found = padded(images, Augmentation(crop_padding=3, padding=mode))
    assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("crop_padding", [0, 2])
@pytest.mark.parametrize("padding", ["zero", "reflect"])
@pytest.mark.parametrize("masked", [False, True])
def test_images_padded_beforehand_give_the_same_batches(
    padding: Padding, masked: bool, crop_padding: int
) -> None:
    images = pictures(20)
    targets = images[..., 0].clone() if masked else torch.arange(20)
    augmentation = Augmentation(crop_padding, True, 3, padding)
    inside = batches(images, targets, augmentation=augmentation)
    outside = batches(
        padded(images, augmentation),
        padded(targets, augmentation) if masked else targets,
        augmentation=augmentation,
        is_padded=True,
    )
    pairs = [*zip(inside.shuffled(3), outside.shuffled(3), strict=True)]
    pairs += [*zip(inside.in_order(), outside.in_order(), strict=True)]
    for one, other in pairs:
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_padded_images_are_used_where_they_are_on_a_cpu() -> None:
    augmentation = Augmentation(crop_padding=2)
    images, masks = (padded(t, augmentation) for t in (pictures(4), pictures(4)[..., 0]))
    made = batches(images, masks, augmentation=augmentation, is_padded=True)
    images.fill_(255)  # were there a copy, the batches would not see this
    masks.fill_(7)
    shown, shown_masks = next(made.shuffled(0))
    torch.testing.assert_close(shown, normalised(torch.full_like(pictures(4), 255)))
    assert shown_masks.unique().tolist() == [7]


def test_what_is_done_to_a_batch_leaves_the_images_as_they_are() -> None:
    made = batches(pictures(8), augmentation=Augmentation(1, True, 3))
    for shown, _ in (*made.shuffled(0), *made.in_order()):
        shown.zero_()
    torch.testing.assert_close(next(made.in_order())[0], normalised(pictures(8)))


def test_a_border_wider_than_the_image_cannot_be_mirrored() -> None:
    with pytest.raises(ValueError, match="crop_padding must be below the image's 6 pixels"):
        batches(pictures(4), augmentation=Augmentation(6, padding="reflect"))
    batches(pictures(4), augmentation=Augmentation(6, padding="zero"))


@pytest.mark.parametrize("masked", [False, True])
def test_what_is_off_draws_nothing_and_changes_no_bit(masked: bool) -> None:
    """Crop, flip, normalisation and cutout once more, in numpy and image by image."""
    images, pad, cutout = pictures(20), 2, 3
    targets = images[..., 0].clone() if masked else torch.arange(20)
    augmentation = Augmentation(pad, True, cutout)
    framed = np.pad(images.numpy(), [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    framed_masks = framed[..., 0]
    scale = (1 / (255 * torch.tensor(STD))).numpy()
    offset = (-torch.tensor(MEAN) / torch.tensor(STD)).numpy()

    random = np.random.default_rng(4)
    order = random.permutation(20)
    for n, (shown, shown_targets) in enumerate(
        batches(images, targets, augmentation=augmentation).shuffled(4)
    ):
        index = order[8 * n : 8 * n + 8]
        top, left = random.integers(0, 2 * pad + 1, size=(2, 8))
        mirrored = random.random(8) < 0.5
        applied = random.random((8, 1))[:, 0] < 0.5
        corner_rows = random.integers(-(cutout // 2), HEIGHT - cutout // 2, size=(8, 1))[:, 0]
        corner_columns = random.integers(-(cutout // 2), WIDTH - cutout // 2, size=(8, 1))[:, 0]
        for i in range(8):
            window = np.s_[index[i], top[i] : top[i] + HEIGHT, left[i] : left[i] + WIDTH]
            image, mask = framed[window], framed_masks[window]
            if mirrored[i]:
                image, mask = image[:, ::-1], mask[:, ::-1]
            values = image.astype(np.float32) * scale + offset
            if applied[i]:
                rows, columns = (
                    slice(max(0, corner), max(0, corner + cutout))
                    for corner in (corner_rows[i], corner_columns[i])
                )
                values[rows, columns] = 0
            assert np.array_equal(shown[i].permute(1, 2, 0).numpy(), values)
            expected = mask if masked else index[i]
            assert np.array_equal(shown_targets[i].numpy(), expected)


EVERYTHING = {"random_resized_crop": 0.4, "color_jitter": 0.4, "randaugment_ops": 2}


@pytest.mark.parametrize("setting", EVERYTHING)
def test_each_setting_changes_what_is_shown_but_not_the_order(setting: str) -> None:
    images = pictures(20)
    changed = batches(images, augmentation=Augmentation(2, **{setting: EVERYTHING[setting]}))
    plain = batches(images, augmentation=Augmentation(2))
    (shown, targets), (expected, classes) = next(changed.shuffled(0)), next(plain.shuffled(0))
    assert torch.equal(targets, classes)
    different = (shown != expected).flatten(1).any(1)
    assert different.sum() >= 5  # of 8: RandAugment has operations that change little
    assert shown.shape == expected.shape
    assert shown.is_contiguous(memory_format=torch.channels_last)
    assert ((shown >= expected.min() - 0.1) & (shown <= 3)).all()  # bytes, normalised


def test_everything_at_once_is_drawn_from_the_seed_and_leaves_the_images_as_they_are() -> None:
    images = pictures(20)
    made = batches(images, augmentation=Augmentation(1, True, 2, **EVERYTHING))
    first, again = list(made.shuffled(0)), list(made.shuffled(0))
    torch.manual_seed(5)
    for (one, _), (other, _) in zip(first, again, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(first[0][0], next(made.shuffled(1))[0])
    torch.testing.assert_close(
        torch.cat([shown for shown, _ in made.in_order()]), normalised(images), rtol=0, atol=1e-6
    )


def test_a_mask_is_resized_from_the_same_crop_as_its_image() -> None:
    masks = (pictures(8)[..., 0] > 127).to(torch.uint8)
    images = (masks * 255)[..., None].expand(-1, -1, -1, 3).contiguous()
    augmentation = Augmentation(1, True, random_resized_crop=0.3)
    for image, mask in epochs(batches(images, masks, augmentation=augmentation), seeds=20):
        assert mask.unique().tolist() in ([0], [1], [0, 1])
        red = image[0] * STD[0] + MEAN[0]
        sure = (red < 1e-3) | (red > 1 - 1e-3)  # the rest lies between black and white pixels
        assert sure.any()
        assert torch.equal((red > 0.5)[sure], (mask == 1)[sure])


def test_colours_and_randaugment_need_grey_or_colour_and_randaugment_no_masks() -> None:
    two = pictures(4)[..., :2]
    for augmentation in (Augmentation(color_jitter=0.1), Augmentation(randaugment_ops=1)):
        with pytest.raises(ValueError, match="for 1 or 3 channels, got 2"):
            InMemoryBatches(
                two, torch.arange(4), batch_size=2, mean=(0.5, 0.5), std=(0.5, 0.5),
                device=torch.device("cpu"), augmentation=augmentation,
            )  # fmt: skip
    with pytest.raises(ValueError, match="RandAugment would move images away from their masks"):
        batches(pictures(4), pictures(4)[..., 0], augmentation=Augmentation(randaugment_ops=1))


def test_no_images_make_no_batches() -> None:
    with pytest.raises(ValueError, match="no images"):
        batches(pictures(4)[:0])
