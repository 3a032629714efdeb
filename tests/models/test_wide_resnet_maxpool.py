"""Against a second writing of the published layers, as functions of the same weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from samtune.models import build_model


def published(weights, x, training, dropout):
    """Logits and, while training, the statistics of the batches left where they are."""
    left = list(weights.items())

    def take(count):
        taken, left[:count] = [value for _, value in left[:count]], []
        return taken

    def cbr(x):
        kernel, scale, shift, mean, variance, _count = take(6)
        x = F.conv2d(x, kernel, padding="same")
        mean, variance = mean.clone(), variance.clone()
        return F.batch_norm(x, mean, variance, scale, shift, training=training).relu()

    def block(x, scaled):
        y = cbr(x)
        y = cbr(F.dropout(y, dropout, training))
        if scaled:
            kernel, bias = take(2)
            x = F.conv2d(x, kernel, bias)
        return x + y

    x = cbr(x)
    for stage in range(3):
        x = block(block(x, True), False)
        if stage < 2:
            x = F.max_pool2d(x, 2)
    x = F.avg_pool2d(x, 7).flatten(1)
    x = F.linear(x, *take(2))
    assert not left
    return x


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("side", [28, 32])
def test_its_outputs_are_those_of_the_published_layers(training, side):
    torch.manual_seed(0)
    model = build_model(
        "wide_resnet_maxpool",
        in_channels=3,
        num_classes=5,
        image_size=(side, side),
        width_factor=2,
        dropout=0.3,
        pooling="7x7",
    ).train(training)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.is_floating_point():  # weights and means all different
                value.add_(0.1 * torch.randn_like(value))
        images = torch.randn(4, 3, side, side)
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        torch.manual_seed(1)
        expected = published(weights, images, training, 0.3)
        torch.manual_seed(1)
        torch.testing.assert_close(model(images), expected)


def test_dropout_is_a_hundredth_and_the_width_ten_unless_told():
    with torch.device("meta"):
        model = build_model("wide_resnet_maxpool", in_channels=3, num_classes=100)
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.01}
    assert model[-1].in_features == 640
