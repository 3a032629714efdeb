from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from samtune.errors import SamtuneError
from samtune.models import build_model
from samtune.registry import MODELS


def built(name, channels, side, **params):
    with torch.device("meta"):
        return build_model(
            name, in_channels=channels, num_classes=10, image_size=(side, side), **params
        )


def first_conv(model):
    return next(m for m in model.modules() if isinstance(m, nn.Conv2d))


def test_large_colour_images_meet_torchvisions_own_stem():
    conv = first_conv(built("torchvision/resnet18", 3, 224))
    assert (conv.in_channels, conv.kernel_size, conv.stride) == (3, (7, 7), (2, 2))


def test_small_grey_images_keep_their_size_in_the_stem():
    model = built("torchvision/resnet18", 1, 32)
    conv = first_conv(model)
    assert (conv.in_channels, conv.kernel_size, conv.stride) == (1, (3, 3), (1, 1))
    assert isinstance(model.maxpool, nn.Identity)


def test_the_stem_can_be_named():
    assert first_conv(built("torchvision/resnet18", 1, 32, stem="imagenet")).stride == (2, 2)
    assert first_conv(built("torchvision/resnet18", 3, 224, stem="small")).stride == (1, 1)


def test_a_model_that_computes_its_widths_with_tensors_is_measured_without_memory():
    model = built("torchvision/regnet_y_400mf", 3, 32)
    assert all(p.is_meta for p in model.parameters())


def test_a_vision_transformer_is_made_for_the_images_size():
    with torch.device("meta"):
        assert built("torchvision/vit_b_16", 3, 64)(torch.empty(2, 3, 64, 64)).shape == (2, 10)


def test_every_name_that_torchvision_lists_is_known():
    from torchvision import models

    assert all(f"torchvision/{name}" in MODELS for name in models.list_models(module=models))
    assert "torchvision/fasterrcnn_resnet50_fpn" not in MODELS


def test_a_misspelt_name_is_corrected_within_its_family():
    with pytest.raises(SamtuneError, match="Did you mean 'torchvision/resnet18'"):
        MODELS["torchvision/resnet81"]


def test_importing_the_models_imports_neither_library():
    code = (
        "import samtune.models, sys; "
        "print([m for m in ('torchvision', 'timm', 'torchmetrics') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_timms_models_take_the_images_channels_and_size(name):
    with torch.device("meta"):
        assert built(f"timm/{name}", 1, 64)(torch.empty(2, 1, 64, 64)).shape == (2, 10)


def last_side(name, side, **params):
    with torch.device("meta"):
        features = built(name, 1, side, **params).forward_features(torch.empty(2, 1, side, side))
    return features.shape[-1]


# How many times larger the last map is where the first layer keeps the image's size: its stride is
# taken away, and where a pooling ends the stem the pooling's.
TIMM = {
    "resnet18": 4,
    "resnet18d": 4,
    "densenet121": 4,
    "convnext_atto": 4,
    "resnetv2_18": 4,
    "mobilenetv3_small_050": 2,
    "dm_nfnet_f0": 2,
}


@pytest.mark.parametrize("name", TIMM)
def test_small_images_keep_their_size_in_timms_stem_where_that_is_asked_for(name):
    own = last_side(f"timm/{name}", 32)
    assert last_side(f"timm/{name}", 32, stem="imagenet") == own == 1
    assert last_side(f"timm/{name}", 32, stem="small") == TIMM[name]
    assert last_side(f"timm/{name}", 32, stem="auto") == TIMM[name]


def test_by_size_timms_large_images_meet_its_own_stem():
    assert first_conv(built("timm/resnet18", 1, 64, stem="auto")).stride == (2, 2)


def test_a_pooling_within_timms_stages_stays():
    # The first pooling of InceptionV4 runs beside a convolution: both are put together.
    model = built("timm/inception_v4", 1, 64, stem="small")
    pools = [m for m in model.modules() if isinstance(m, nn.MaxPool2d)]
    kept = [m for m in built("timm/inception_v4", 1, 64).modules() if isinstance(m, nn.MaxPool2d)]
    assert len(pools) == len(kept)
    assert first_conv(model).stride == (1, 1)


@pytest.mark.parametrize(
    "name",
    ["torchvision/vit_b_16", "timm/vit_tiny_patch16_224", "timm/swin_tiny_patch4_window7_224"],
)
def test_a_model_that_knows_its_patches_refuses_a_small_stem_and_by_size_keeps_its_own(name):
    with pytest.raises(ValueError, match=r"stem 'small' does not go with \w+, whose later layers"):
        built(name, 3, 224, stem="small")
    side = 64 if "swin" not in name else 224
    own = first_conv(built(name, 3, side, stem="imagenet"))
    assert first_conv(built(name, 3, side, stem="auto")).stride == own.stride


def test_timms_own_kind_of_convolution_stays_its_kind():
    before, after = (
        first_conv(built("timm/dm_nfnet_f0", 1, 32, stem=stem)) for stem in ("imagenet", "small")
    )
    assert type(after) is type(before) is not nn.Conv2d
    assert after.weight.shape[-2:] == (3, 3)
