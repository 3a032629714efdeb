"""Where the neighbor is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from samtune.sam import SAM, norm_parameters
from tests.sam.steps import CLIMBS, SGD, batch, small_net, vector, weights


def test_the_neighbor_is_rho_away_along_the_gradient() -> None:
    w = vector(3, 4)
    (0.5 * w.square().sum()).backward()  # the gradient is w itself, norm 5
    with SAM([w], SGD, lr=0.1, rho=0.5).at_worst_neighbor():
        torch.testing.assert_close(w.data, vector(3.3, 4.4).data)


def test_the_adaptive_neighbor_is_rho_away_in_units_of_each_weight() -> None:
    w = vector(3, -4)
    w.grad = torch.ones_like(w)  # T g = (3, 4), norm 5; T^2 g = (9, 16)
    with SAM([w], SGD, lr=0.1, rho=0.5, adaptive=True).at_worst_neighbor():
        torch.testing.assert_close(w.data, vector(3 + 0.9, -4 + 1.6).data)
        assert ((w.data - vector(3, -4).data) / vector(3, 4).data).norm() == pytest.approx(0.5)


def test_eta_lets_a_weight_of_zero_climb() -> None:
    w = vector(0, 2)
    w.grad = torch.tensor([4.0, 1.0], dtype=torch.float64)  # T = (1, 3): T g = (4, 3), norm 5
    with SAM([w], SGD, lr=0.1, rho=0.5, adaptive=True, eta=1.0).at_worst_neighbor():
        torch.testing.assert_close(w.data, vector(0.1 * 4, 2 + 0.1 * 9).data)


def test_groups_share_one_norm_and_keep_their_own_rho_and_metric() -> None:
    plain, adaptive, still = vector(1), vector(2), vector(5)
    groups = [
        {"params": [plain], "rho": 1.0},
        {"params": [adaptive], "rho": 0.5, "adaptive": True},
        {"params": [still], "rho": 0.0},
    ]
    optimizer = SAM(groups, SGD, lr=0.1)
    for w, g in ((plain, 3.0), (adaptive, 2.0), (still, 12.0)):
        w.grad = torch.full_like(w, g)  # (3, 2 * 2, 12): norm 13
    with optimizer.at_worst_neighbor():
        assert plain.item() == pytest.approx(1 + 3 / 13)
        assert adaptive.item() == pytest.approx(2 + 0.5 * 4 * 2 / 13)
        assert still.item() == 5


def test_friendly_sam_climbs_along_what_is_new_in_the_gradient() -> None:
    w = vector(0, 0)
    optimizer = SAM([w], SGD, lr=1.0, rho=1.0, sigma=1.0, mean_decay=0.9)
    for gradient, neighbor in (
        ((1.0, 0.0), (1.0, 0.0)),  # no mean yet: SAM's own neighbor; the mean is now (1, 0)
        ((1.0, 2.0), (0.0, 1.0)),  # new is (0, 2); the mean is now .9 (1, 0) + .1 (1, 2) = (1, .2)
        ((4.0, 4.2), (0.6, 0.8)),  # new is (3, 4)
    ):
        w.grad = torch.tensor(gradient, dtype=torch.float64)
        with optimizer.at_worst_neighbor():
            torch.testing.assert_close(w.data, vector(*neighbor).data)


def test_friendly_sam_may_leave_out_a_part_of_the_mean() -> None:
    w = vector(0, 0)
    optimizer = SAM([w], SGD, lr=1.0, rho=1.0, sigma=0.5, mean_decay=0.9)
    for gradient, neighbor in (
        ((1.0, 0.0), (1.0, 0.0)),  # the mean is now (1, 0), of which half is left out
        ((0.5, 2.0), (0.0, 1.0)),  # the mean is now .9 (1, 0) + .1 (.5, 2) = (.95, .2)
        ((3.475, 4.1), (0.6, 0.8)),  # what is left is (3, 4)
    ):
        w.grad = torch.tensor(gradient, dtype=torch.float64)
        with optimizer.at_worst_neighbor():
            torch.testing.assert_close(w.data, vector(*neighbor).data)


def test_a_mean_that_forgets_at_once_is_the_last_gradient() -> None:
    w = vector(0, 0)
    optimizer = SAM([w], SGD, lr=1.0, rho=1.0, sigma=1.0, mean_decay=0.0)
    for gradient, neighbor in (((1.0, 2.0), None), ((4.0, 6.0), (0.6, 0.8))):  # new is (3, 4)
        w.grad = torch.tensor(gradient, dtype=torch.float64)
        with optimizer.at_worst_neighbor():
            if neighbor:
                torch.testing.assert_close(w.data, vector(*neighbor).data)


def test_the_momentum_neighbor_is_rho_away_against_the_momentum() -> None:
    w = vector(0, 0)
    optimizer = SAM([w], SGD, lr=1.0, momentum=0.5, rho=2.0)
    with optimizer.at_momentum_neighbor():
        assert w.tolist() == [0, 0]  # no momentum yet
        w.grad = torch.tensor([3.0, 4.0], dtype=torch.float64)
    optimizer.descend()
    assert w.tolist() == [-3, -4]
    with optimizer.at_momentum_neighbor():
        torch.testing.assert_close(w.data, vector(-3 - 2 * 0.6, -4 - 2 * 0.8).data)
    assert w.tolist() == [-3, -4]


def test_msam_needs_an_optimizer_with_momentum() -> None:
    with (
        pytest.raises(ValueError, match="keeps none"),
        SAM([vector(1)], SGD, lr=0.1).at_momentum_neighbor(),
    ):
        pass


def test_the_norm_is_computed_in_float32_for_half_weights() -> None:
    w = nn.Parameter(torch.zeros(100, dtype=torch.float16))
    w.grad = torch.full_like(w, 6e4)  # the sum of squares overflows a half
    with SAM([w], SGD, lr=0.1, rho=1.0).at_worst_neighbor():
        torch.testing.assert_close(w.data, torch.full_like(w, 0.1), rtol=0.01, atol=0)


@pytest.mark.parametrize("climb", CLIMBS)
def test_a_gradient_of_zeros_climbs_nowhere(climb: dict[str, float]) -> None:
    w = vector(1, 2)
    w.grad = torch.zeros_like(w)
    with SAM([w], SGD, lr=0.1, rho=50.0, **climb).at_worst_neighbor():
        assert w.tolist() == [1, 2]


def test_norm_layers_are_found_by_type() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.GroupNorm(1, 2), nn.LayerNorm(2), nn.Linear(2, 2))
    assert [p.shape[0] for p in norm_parameters(model)] == [2, 2, 2, 2]
    with pytest.raises(ValueError, match="has none"):
        norm_parameters(nn.Linear(2, 2))


def test_only_weights_with_a_gradient_climb_and_count() -> None:
    model = small_net()
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.5)
    before = weights(model)
    inputs, targets = batch(0)
    norms = norm_parameters(model)
    nn.functional.cross_entropy(model(inputs), targets).backward(inputs=norms)
    with optimizer.at_worst_neighbor():
        moved = [p.data - before[name] for name, p in model.named_parameters() if name[0] == "1"]
        assert torch.cat(moved).norm() == pytest.approx(0.5)
        assert torch.equal(model[0].weight, before["0.weight"])


def test_sparse_gradients_climb_as_dense_ones() -> None:
    found = []
    for sparse in (False, True):
        torch.manual_seed(0)
        table = nn.Embedding(6, 3, sparse=sparse)
        optimizer = SAM(table.parameters(), SGD, lr=0.1, rho=0.5)
        for _ in range(2):
            table(torch.tensor([1, 1, 3])).square().sum().backward()  # one of them twice
            with optimizer.at_worst_neighbor():
                loss = table(torch.tensor([1, 1, 3])).square().sum()
                loss.backward()
            optimizer.descend()
            optimizer.zero_grad()
            found.append(loss.item())
    assert found[:2] == pytest.approx(found[2:])
