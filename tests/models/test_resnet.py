from __future__ import annotations

import pytest
import torch
import torchvision

from samtune.models import build_model

PLAIN = [64, 128, 256, 512]
TWINS = [
    ("resnet18", {"blocks": [2, 2, 2, 2], "channels": PLAIN}),
    ("resnet34", {"blocks": [3, 4, 6, 3], "channels": PLAIN}),
    (
        "resnet50",
        {"blocks": [3, 4, 6, 3], "channels": [256, 512, 1024, 2048], "bottlenecks": PLAIN},
    ),
]


@pytest.mark.parametrize(("name", "params"), TWINS)
def test_with_the_weights_of_torchvisions_resnet_it_gives_the_same_outputs(name, params):
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, weights=None).eval()
    ours = build_model(
        "resnet",
        in_channels=3,
        num_classes=1000,
        first_kernel_size=7,
        stem_reduction=4,
        **params,
    ).eval()
    # The same layers in the same order, under other names.
    values = theirs.state_dict().values()
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-6, atol=1e-6)


def test_every_stage_but_the_first_halves_the_map():
    model = build_model("resnet", in_channels=1, num_classes=2, blocks=[2, 1], channels=[4, 8])
    sizes = []
    for layer in model:
        if type(layer).__name__ == "ResidualBlock":
            layer.register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[-1]))
    model(torch.zeros(2, 1, 16, 16))
    assert sizes == [16, 16, 8]
