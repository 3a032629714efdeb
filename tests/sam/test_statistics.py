"""The second pass leaves running statistics alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from samtune.sam import frozen_batchnorm_stats
from tests.sam.steps import assert_same, weights


def test_the_second_pass_leaves_batch_norms_statistics_alone() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2, momentum=None))
    model(torch.randn(4, 2))
    before = weights(model)
    with frozen_batchnorm_stats(model):
        with frozen_batchnorm_stats(model):
            frozen = model(torch.arange(8.0).reshape(4, 2))
        model(torch.ones(4, 2))
    assert_same(before, weights(model))
    torch.testing.assert_close(frozen.mean(0), torch.zeros(2))  # the batch's own statistics
    model(torch.ones(4, 2))
    assert model[0].num_batches_tracked == 2
    with pytest.raises(ZeroDivisionError), frozen_batchnorm_stats(model):
        1 / 0  # noqa: B018
    assert model[0].track_running_stats


def test_layers_that_track_nothing_stay_so() -> None:
    layer = nn.BatchNorm1d(2, track_running_stats=False)
    with frozen_batchnorm_stats(layer):
        pass
    assert not layer.track_running_stats


@pytest.mark.parametrize("training", [True, False])
def test_the_second_pass_leaves_instance_norms_statistics_alone(training: bool) -> None:
    model = nn.Sequential(
        nn.InstanceNorm2d(2, track_running_stats=True), nn.InstanceNorm2d(2, affine=True)
    ).train(training)
    images = torch.arange(32.0).reshape(2, 2, 2, 4)
    model(images)
    before, expected = weights(model), copy.deepcopy(model)(images)
    buffers = [id(b) for b in model.buffers()]
    with frozen_batchnorm_stats(model):
        with frozen_batchnorm_stats(model):
            assert torch.equal(model(images), expected)
        model(images * 3)
        model(images * float("nan"))
    assert_same(before, weights(model))
    assert [id(b) for b in model.buffers()] == buffers
    model(images * 3)
    assert torch.equal(before["0.running_mean"], model[0].running_mean) != training
    with pytest.raises(ZeroDivisionError), frozen_batchnorm_stats(model):
        1 / 0  # noqa: B018
    assert [id(b) for b in model.buffers()] == buffers
