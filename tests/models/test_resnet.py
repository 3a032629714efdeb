from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
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


def labml(weights, x, blocks, channels, bottlenecks, kernel):
    """labml's layers, written as functions of the weights in their order."""
    left = list(weights.values())

    def conv_norm(x, stride, padding):
        kernel, bias, scale, shift, mean, variance, _count = left[:7]
        del left[:7]
        x = F.conv2d(x, kernel, bias, stride, padding)
        return F.batch_norm(x, mean, variance, scale, shift)

    x = conv_norm(x, 2, kernel // 2)
    width = channels[0]
    for stage, (count, out) in enumerate(zip(blocks, channels, strict=True)):
        for index in range(count):
            stride = 2 if stage == index == 0 else 1
            if bottlenecks:
                y = conv_norm(x, 1, 0).relu()
                y = conv_norm(conv_norm(y, stride, 1).relu(), 1, 0)
            else:
                y = conv_norm(conv_norm(x, stride, 1).relu(), 1, 1)
            if stride != 1 or width != out:
                x = conv_norm(x, stride, 0)
            x, width = (x + y).relu(), out
    logits = F.linear(x.flatten(2).mean(-1), *left)
    assert len(left) == 2
    return logits


@pytest.mark.parametrize("bottlenecks", [None, [3, 2]])
def test_in_labmls_layout_its_outputs_are_those_of_labmls_layers(bottlenecks):
    torch.manual_seed(0)
    sizes = {"blocks": [2, 2], "channels": [4, 8], "bottlenecks": bottlenecks}
    model = build_model(
        "resnet", in_channels=3, num_classes=5, layout="labml", stem_reduction=2, **sizes
    ).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.is_floating_point():
                value.add_(0.1 * torch.randn_like(value))
        images = torch.randn(2, 3, 17, 17)
        expected = labml(model.state_dict(), images, **sizes, kernel=3)
        torch.testing.assert_close(model(images), expected)
