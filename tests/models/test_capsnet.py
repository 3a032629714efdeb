from __future__ import annotations

import pytest
import torch

from samtune.models import build_model
from samtune.models.capsnet import Router, Squash, lengths

SMALL = {"channels": 4, "primary_capsules": 2, "kernel_size": 3, "decoder": [8]}


def small(**params):
    return build_model(
        "capsnet", in_channels=1, num_classes=3, image_size=(8, 8), **SMALL, **params
    )


@pytest.mark.parametrize(("length", "squashed"), [(1.0, 0.5), (10.0, 100 / 101), (0.5, 0.2)])
def test_squash_keeps_the_direction_and_bounds_the_length(length, squashed):
    direction = torch.tensor([0.6, 0.8])
    torch.testing.assert_close(Squash()(length * direction), squashed * direction)


def test_no_gradient_is_nan_where_a_capsule_is_exactly_zero():
    capsule = torch.zeros(2, 3, 4, requires_grad=True)
    (lengths(Squash()(capsule)).sum() + lengths(capsule).sum()).backward()
    assert torch.equal(capsule.grad, torch.zeros(2, 3, 4))


@pytest.mark.parametrize(("dim", "share"), [(2, 1 / 5), (1, 1 / 6)])
def test_a_single_iteration_couples_evenly(dim, share):
    torch.manual_seed(0)
    router = Router(inputs=6, num_classes=5, iterations=1, dim=dim)
    inputs = torch.randn(2, 6, 8)
    predictions = torch.stack(
        [torch.stack([inputs[:, i] @ router.weight[i, k] for k in range(5)], 1) for i in range(6)],
        1,
    )
    torch.testing.assert_close(router(inputs), Squash()(share * predictions.sum(1)))


def test_routing_moves_couplings_to_the_class_that_inputs_agree_on():
    router = Router(inputs=2, num_classes=2, iterations=3, dim=2)
    with torch.no_grad():
        router.weight.zero_()
        router.weight[:, 0, 0, 0] = 3.0  # both inputs predict the same for class 0
        router.weight[0, 1, 0, 0], router.weight[1, 1, 0, 0] = 3.0, -3.0  # and opposites for 1
    inputs = torch.zeros(1, 2, 8)
    inputs[..., 0] = 1.0
    found = lengths(router(inputs))[0]
    assert found[0] > 0.95
    assert found[1] < 1e-3


def test_while_training_the_true_class_is_drawn_and_else_the_longest():
    torch.manual_seed(0)
    model = small()
    images = torch.rand(4, 1, 8, 8)
    capsules, draw = model.train()(images)
    classes = torch.tensor([0, 1, 2, 0])
    assert torch.equal(draw(classes), model.decoder(capsules, classes))
    capsules, drawn = model.eval()(images)
    assert torch.equal(drawn, model.decoder(capsules, lengths(capsules).argmax(1)))
    assert isinstance(small(mask_by="prediction").train()(images)[1], torch.Tensor)


def test_the_other_capsules_do_not_reach_the_decoder():
    decoder = small().decoder
    capsules = torch.randn(1, 3, 16)
    changed = capsules.clone()
    changed[:, [0, 2]] = 5.0
    only = torch.tensor([1])
    assert torch.equal(decoder(capsules, only), decoder(changed, only))


def test_the_chosen_capsule_reaches_the_decoder_and_pixels_stay_between_0_and_1():
    torch.manual_seed(0)
    decoder = small().decoder
    capsules = 1e3 * torch.randn(1, 3, 16)
    changed = capsules.clone()
    changed[:, 1] = -changed[:, 1]
    only = torch.tensor([1])
    assert not torch.equal(decoder(capsules, only), decoder(changed, only))
    drawn = decoder(capsules, only)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
