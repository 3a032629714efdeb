"""Parameter counts and output shapes, against figures counted elsewhere."""

from __future__ import annotations

import pytest
import torch

from samtune.models import build_model
from samtune.registry import MODELS

IMAGENET = {"first_kernel_size": 7, "stem_reduction": 4}
PLAIN = [64, 128, 256, 512]
RESNET_50 = {
    "blocks": [3, 4, 6, 3],
    "channels": [256, 512, 1024, 2048],
    "bottlenecks": PLAIN,
}
LABML = {"layout": "labml", "stem_reduction": 2}
SEVEN = {"first_kernel_size": 7}
COUNTS = [
    ("wide_resnet", 3, 10, 32, {"depth": 22, "width_factor": 8}, 17_158_106),
    ("wide_resnet", 3, 10, 32, {"depth": 16, "width_factor": 4}, 2_748_890),
    ("wide_resnet", 3, 10, 32, {"depth": 28, "width_factor": 10}, 36_479_194),
    ("wide_resnet", 3, 100, 32, {"depth": 16, "width_factor": 8}, 11_007_540),
    ("wrn_40_4", 3, 10, 32, {}, 8_949_210),
    ("wrn_40_4", 3, 100, 32, {}, 8_972_340),
    ("wide_resnet_maxpool", 3, 100, 32, {}, 17_175_444),
    ("wide_resnet_maxpool", 3, 10, 32, {}, 17_117_754),
    ("resnet", 3, 1000, 224, {"blocks": [2] * 4, "channels": PLAIN, **IMAGENET}, 11_689_512),
    ("resnet", 3, 1000, 224, {"blocks": [3, 4, 6, 3], "channels": PLAIN, **IMAGENET}, 21_797_672),
    (
        "resnet",
        3,
        1000,
        224,
        {**RESNET_50, **IMAGENET},
        25_557_032,
    ),
    ("resnet", 3, 10, 32, {**LABML, "first_kernel_size": 3}, 273_562),
    ("resnet", 3, 10, 32, {**LABML, "blocks": [6] * 3, "bottlenecks": [8, 16, 16]}, 58_042),
    ("resnet", 3, 1000, 224, {**LABML, **SEVEN, "blocks": [2] * 4, "channels": PLAIN}, 11_698_600),
    (
        "resnet",
        3,
        1000,
        224,
        {**LABML, **SEVEN, "blocks": [3, 4, 6, 3], "channels": PLAIN},
        21_810_472,
    ),
    ("resnet", 3, 1000, 224, {**LABML, **SEVEN, **RESNET_50}, 25_673_832),
    ("resnet", 3, 10, 32, {**LABML, "blocks": [2] * 4, "channels": PLAIN}, 11_183_050),
    ("resnet", 3, 10, 32, {**LABML, "blocks": [3, 4, 6, 3], "channels": PLAIN}, 21_294_922),
    ("resnet", 3, 10, 32, {**LABML, **RESNET_50}, 23_614_602),
    ("capsnet", 1, 10, 28, {}, 8_215_568),
    # By hand: convs 9*2+2 and 18*8+8, routing 1*2*2*8*16 (28 -> 26 -> 12 places of 144),
    # decoder 32*4+4 and 4*784+784.
    (
        "capsnet",
        1,
        2,
        28,
        {"channels": 2, "primary_capsules": 1, "kernel_size": 3, "decoder": [4]},
        20 + 152 + 144 * 2 * 8 * 16 + 132 + 3920,
    ),
    ("unet", 1, 1, 64, {}, 31_030_593),
    ("unet", 3, 2, 64, {}, 31_031_810),
    ("unet", 3, 10, 64, {}, 31_032_330),
    # Each of the 18 convolutions loses a bias and gains a scale and a shift: as many channels more,
    # 2 * (64 + 128 + 256 + 512) on the way down, as many on the way up, and 2 * 1024 between.
    ("unet", 1, 1, 64, {"batch_norm": True}, 31_030_593 + 4 * 960 + 2048),
    ("torchvision/resnet18", 3, 1000, 224, {}, 11_689_512),
    ("torchvision/mobilenet_v2", 3, 1000, 224, {}, 3_504_872),
]


@pytest.mark.parametrize(("name", "channels", "classes", "side", "params", "count"), COUNTS)
def test_the_number_of_parameters_is_the_published_one(
    name, channels, classes, side, params, count
):
    with torch.device("meta"):
        model = build_model(
            name, in_channels=channels, num_classes=classes, image_size=(side, side), **params
        )
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (33, 47), (64, 64)])
@pytest.mark.parametrize("name", ["wide_resnet", "wide_resnet_maxpool", "resnet"])
def test_a_classifier_gives_one_logit_a_class_at_every_size(name, size):
    with torch.device("meta"):
        model = build_model(name, in_channels=1, num_classes=7, image_size=size)
        assert model(torch.empty(2, 1, *size)).shape == (2, 7)


@pytest.mark.parametrize(("given", "expected"), [(64, 64), (100, 96), (31, 16), (572, 560)])
def test_unet_gives_the_largest_multiple_of_sixteen(given, expected):
    with torch.device("meta"):
        model = build_model("unet", in_channels=1, num_classes=3, image_size=(given, given))
        assert model(torch.empty(1, 1, given, given)).shape == (1, 3, expected, expected)


@pytest.mark.parametrize(
    ("name", "size", "params", "message"),
    [
        ("wide_resnet", 32, {"depth": 13}, "depth must be 10, 16, 22"),
        ("wide_resnet_maxpool", 3, {}, "at least 4x4"),
        ("wide_resnet_maxpool", 56, {"pooling": "7x7"}, "28 to 55 pixels, got 56x56"),
        ("resnet", 32, {"blocks": [1, 1]}, "channels must have one number for each stage"),
        ("resnet", 32, {"first_kernel_size": 4}, "must be odd, got 4"),
        ("capsnet", 8, {}, "kernel_size 9 is too large for images of 8x8; at most 4"),
        ("unet", 15, {}, "at least 16x16 pixels, got 15x15"),
    ],
)
def test_what_cannot_be_built_is_said_in_a_sentence(name, size, params, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, in_channels=1, num_classes=10, image_size=(size, size), **params)


def test_the_largest_kernel_that_capsnet_names_works():
    model = build_model(
        "capsnet",
        in_channels=1,
        num_classes=2,
        image_size=(8, 8),
        kernel_size=4,
        channels=2,
        primary_capsules=1,
        decoder=[2],
    )
    assert model(torch.zeros(1, 1, 8, 8))[0].shape == (1, 2, 16)


@pytest.mark.parametrize("name", [n for n in MODELS if MODELS[n].requires("image_size")])
def test_a_model_made_for_one_size_says_that_it_needs_it(name):
    with pytest.raises(ValueError, match=f"model '{name}' needs the images' size: image_size="):
        build_model(name, in_channels=1, num_classes=10)


def test_batch_norm_in_unet_comes_after_each_convolution_and_before_its_relu():
    with torch.device("meta"):
        model = build_model("unet", in_channels=1, num_classes=2, batch_norm=True)
    kinds = [type(m).__name__ for m in model.middle]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 2
