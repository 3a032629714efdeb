"""The optimizer: where the neighbor is, that the weights come home, and what a step amounts to."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from samtune.sam import SAM, frozen_batchnorm_stats, norm_parameters

SGD = torch.optim.SGD
BASES = [
    (SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "fused": True}),
    (torch.optim.Adam, {"lr": 1e-2}),
    (torch.optim.AdamW, {"lr": 1e-2}),
    (torch.optim.AdamW, {"lr": 1e-2, "fused": True}),
]
CLIMBS = [{}, {"adaptive": True}, {"adaptive": True, "eta": 0.01}, {"sigma": 1.0}]


def vector(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(),
        nn.Linear(4 * 36, 3),
    )  # fmt: skip


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, 1, 8, 8, generator=generator), torch.randint(
        0, 3, (8,), generator=generator
    )


def backward(model: nn.Module, seed: int = 0) -> None:
    inputs, targets = batch(seed)
    nn.functional.cross_entropy(model(inputs), targets).backward()


def sam_step(model: nn.Module, optimizer: SAM, seed: int) -> None:
    torch.manual_seed(seed)
    backward(model, seed)
    with optimizer.at_worst_neighbor(), frozen_batchnorm_stats(model):
        backward(model, seed)
    optimizer.descend()
    optimizer.zero_grad()


def fail_after(work, *args) -> None:
    work(*args)
    raise ZeroDivisionError


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


# --- where the neighbor is


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


# --- coming home


@pytest.mark.parametrize("climb", CLIMBS)
def test_weights_come_home_bit_for_bit_to_their_own_memory(climb: dict[str, float]):
    model = small_net()
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.3, **climb)
    before, memory = weights(model), [p.data_ptr() for p in model.parameters()]
    held = model[0].weight.detach()
    backward(model)
    with optimizer.at_worst_neighbor():
        assert not torch.equal(model[0].weight, before["0.weight"])
        assert torch.equal(held, before["0.weight"])
    assert_same({k: before[k] for k, _ in model.named_parameters()}, dict(model.named_parameters()))
    assert [p.data_ptr() for p in model.parameters()] == memory


def test_a_climb_that_fails_in_its_second_group_has_moved_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small_net()
    groups = [{"params": [p]} for p in model.parameters()]
    optimizer = SAM(groups, SGD, lr=0.1, rho=0.3)
    backward(model)
    before = weights(model)
    allocate = iter([torch.empty_like] * (len(groups) - 1))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: next(allocate)(*a, **k))  # then fails
    with pytest.raises(StopIteration):
        optimizer.first_step()
    assert_same(before, weights(model))
    monkeypatch.undo()
    optimizer.first_step()  # nothing is left to come home
    optimizer.second_step()


@pytest.mark.parametrize("climb", CLIMBS)
@pytest.mark.parametrize("size", [0.0, 1e-40, 1e-23, 1e-20])
def test_a_vanishing_gradient_never_climbs_further_than_rho(
    climb: dict[str, float], size: float
) -> None:
    layer = nn.Linear(30, 20)
    optimizer = SAM(layer.parameters(), SGD, lr=0.1, rho=0.3, **climb)
    before = [p.detach().clone() for p in layer.parameters()]
    for p in layer.parameters():
        p.grad = torch.full_like(p, size)
    with optimizer.at_worst_neighbor():
        moved = [(p - b).flatten() for p, b in zip(layer.parameters(), before, strict=True)]
    assert torch.cat(moved).norm() <= 0.3


def test_a_graph_of_other_weights_is_refused_by_autograd() -> None:
    model, images = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)), torch.randn(2, 4)
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.3)
    model(images).sum().backward()
    at_home = model(images).sum()
    with (
        pytest.raises(RuntimeError, match="modified by an inplace operation"),
        optimizer.at_worst_neighbor(),
    ):
        at_home.backward()
    model(images).sum().backward()
    with optimizer.at_worst_neighbor():
        at_neighbor = model(images).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        at_neighbor.backward()


def test_a_model_that_changes_its_type_climbs_in_the_new_one() -> None:
    model = nn.Linear(4, 1)
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.3)
    for dtype in (torch.float32, torch.float64):
        model.to(dtype)
        images = torch.randn(2, 4, dtype=dtype)
        model(images).sum().backward()
        with optimizer.at_worst_neighbor():
            assert model(images).dtype == dtype
        optimizer.zero_grad()


def test_an_optimizer_whose_weights_are_away_cannot_be_copied() -> None:
    model = small_net()
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.3)
    backward(model)
    with optimizer.at_worst_neighbor(), pytest.raises(RuntimeError, match="at the neighbor"):
        copy.deepcopy(optimizer)


def test_after_an_exception_weights_gradients_and_batch_norm_are_as_before_the_step() -> None:
    model = small_net()
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.3)
    backward(model)
    before = weights(model)
    with (
        pytest.raises(ZeroDivisionError),
        optimizer.at_worst_neighbor(),
        frozen_batchnorm_stats(model),
    ):
        fail_after(backward, model)
    assert_same(before, weights(model))
    assert all(p.grad is None for p in model.parameters())
    assert model[1].track_running_stats
    sam_step(model, optimizer, 0)  # and the optimizer is usable


def test_a_weight_without_a_second_gradient_comes_home_and_stays() -> None:
    used, dropped = vector(1), vector(2)
    optimizer = SAM([used, dropped], SGD, lr=0.1, rho=0.5)
    (used * dropped).backward()
    with optimizer.at_worst_neighbor():
        assert dropped.item() != 2
        used.square().backward()
    optimizer.descend()
    assert dropped.item() == 2
    assert used.item() != 1


def test_a_weight_with_a_second_gradient_only_steps() -> None:
    first, late = vector(1), vector(2)
    optimizer = SAM([first, late], SGD, lr=0.1, rho=0.5)
    first.square().backward()
    with optimizer.at_worst_neighbor():
        (first * late).backward()
    optimizer.descend()
    assert late.item() == pytest.approx(2 - 0.1 * 1.5)


def test_tied_weights_climb_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    before = model[0].weight.detach().clone()
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.5)
    model(torch.ones(1, 3)).square().sum().backward()
    with optimizer.at_worst_neighbor():
        assert (model[0].weight - before).norm().item() == pytest.approx(0.5)
    assert torch.equal(model[1].weight, before)


def test_climbing_twice_without_coming_home_is_refused() -> None:
    w = vector(1)
    optimizer = SAM([w], SGD, lr=0.1)
    w.grad = torch.ones_like(w)
    optimizer.first_step()
    with pytest.raises(RuntimeError, match="second_step"):
        optimizer.first_step()


def test_climbing_without_a_gradient_is_refused() -> None:
    with pytest.raises(RuntimeError, match="backward"):
        SAM([vector(1)], SGD, lr=0.1).first_step()


# --- not finite


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("base", [SGD, torch.optim.Adam])
def test_a_climb_that_is_not_finite_skips_the_step(
    base: type, bad: float, asynchronous: bool
) -> None:
    w = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = SAM([w], base, lr=0.1, rho=0.5, fused=True)
    optimizer.asynchronous = asynchronous
    for gradient in (1.0, bad, 1.0):
        w.grad = torch.tensor([1.0, gradient])
        before = w.detach().clone()
        with optimizer.at_worst_neighbor():
            w.grad = torch.tensor([1.0, 1.0])
        optimizer.descend()
        assert torch.equal(w, before) == (gradient is bad)
    assert optimizer.skipped_steps == 1
    assert optimizer.state_dict()["skipped_steps"] == 1


def test_never_waiting_for_the_device_gives_the_same_steps() -> None:
    trained = []
    for asynchronous in (False, True):
        model = small_net()
        optimizer = SAM(model.parameters(), SGD, lr=0.1, momentum=0.9, rho=0.3, fused=True)
        optimizer.asynchronous = asynchronous
        for seed in range(5):
            sam_step(model, optimizer, seed)
        trained.append(weights(model))
    for name in trained[0]:
        torch.testing.assert_close(trained[0][name], trained[1][name])


def test_a_gradient_that_is_not_finite_leaves_friendly_sams_mean_alone() -> None:
    w = vector(0, 0)
    optimizer = SAM([w], SGD, lr=1.0, rho=1.0, sigma=1.0)
    for value in (1.0, float("nan")):
        w.grad = torch.full_like(w, value)
        with optimizer.at_worst_neighbor():
            pass
    assert optimizer.state_dict()["gradient_means"][0].tolist() == [1, 1]


# --- the base optimizer


@pytest.mark.parametrize(("base", "settings"), BASES)
def test_rho_0_is_the_base_optimizer_bit_for_bit(base: type, settings: dict[str, float]) -> None:
    sam_model, base_model = small_net(), small_net()
    sam = SAM(sam_model.parameters(), base, rho=0.0, **settings)
    plain = base(base_model.parameters(), **settings)
    assert sam.is_plain
    for seed in range(5):
        for model, optimizer in ((sam_model, sam), (base_model, plain)):
            torch.manual_seed(seed)
            backward(model, seed)
            optimizer.descend() if optimizer is sam else optimizer.step()
            optimizer.zero_grad()
    assert_same(weights(sam_model), weights(base_model))


@pytest.mark.parametrize(("base", "settings"), BASES)
def test_a_climb_of_rho_0_changes_nothing_but_the_dropout_masks(base: type, settings) -> None:
    sam_model, base_model = small_net(), small_net()
    sam = SAM(sam_model.parameters(), base, rho=0.0, **settings)
    plain = base(base_model.parameters(), **settings)
    for seed in range(3):
        torch.manual_seed(seed)
        backward(sam_model, seed)
        torch.manual_seed(seed)
        with sam.at_worst_neighbor(), frozen_batchnorm_stats(sam_model):
            backward(sam_model, seed)
        sam.descend()
        torch.manual_seed(seed)
        backward(base_model, seed)
        plain.step()
        sam.zero_grad()
        plain.zero_grad()
    assert_same(weights(sam_model), weights(base_model))


@pytest.mark.parametrize("base", [SGD, torch.optim.Adam])
@pytest.mark.parametrize("climb", CLIMBS)
def test_a_loaded_optimizer_goes_on_as_if_nothing_had_happened(base: type, climb) -> None:
    settings = {"momentum": 0.9} if base is SGD else {}
    straight, resumed = small_net(), small_net()
    optimizer = SAM(straight.parameters(), base, lr=0.01, rho=0.3, **climb, **settings)
    for seed in range(3):
        sam_step(straight, optimizer, seed)
    saved = pickle.loads(pickle.dumps((straight.state_dict(), optimizer.state_dict())))
    for seed in range(3, 6):
        sam_step(straight, optimizer, seed)

    again = SAM(resumed.parameters(), base, lr=9.9, rho=9.9, **settings)
    resumed.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    for seed in range(3, 6):
        sam_step(resumed, again, seed)
    assert_same(weights(straight), weights(resumed))
    assert again.param_groups[0]["lr"] == 0.01


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("climb", CLIMBS)
def test_a_copy_trains_as_the_original(duplicate, climb: dict[str, float]) -> None:
    model = small_net()
    optimizer = SAM(model.parameters(), SGD, lr=0.1, momentum=0.9, rho=0.3, **climb)
    sam_step(model, optimizer, 0)
    other_model, other = duplicate((model, optimizer))
    for seed in (1, 2):
        sam_step(model, optimizer, seed)
        sam_step(other_model, other, seed)
    assert_same(weights(model), weights(other_model))


def test_lr_schedules_drive_the_base_optimizer_without_a_warning() -> None:
    w = vector(1.0)
    optimizer = SAM([w], SGD, lr=0.4, rho=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        w.square().backward()
        optimizer.step(lambda: w.square().backward())
        schedule.step()
    assert optimizer.base_optimizer.param_groups[0]["lr"] == 0.2


def test_the_well_known_calls_do_the_same_step() -> None:
    results = []
    for way in ("steps", "closure", "context"):
        w = vector(1, 2)
        optimizer = SAM([w], SGD, lr=0.1, momentum=0.9, rho=0.3)
        for _ in range(3):
            loss = w.pow(4).sum()
            loss.backward()
            if way == "steps":
                optimizer.first_step(zero_grad=True)
                w.pow(4).sum().backward()
                optimizer.second_step(zero_grad=True)
            elif way == "closure":
                optimizer.step(lambda w=w: w.pow(4).sum().backward())
                optimizer.zero_grad()
            else:
                with optimizer.at_worst_neighbor():
                    w.pow(4).sum().backward()
                optimizer.descend()
                optimizer.zero_grad()
        results.append(w.tolist())
    assert results[0] == results[1] == results[2]


def test_an_added_group_takes_the_defaults_it_does_not_set() -> None:
    optimizer = SAM([vector(1)], SGD, lr=0.1, rho=0.3)
    optimizer.add_param_group({"params": [vector(2)], "adaptive": True})
    added = optimizer.param_groups[1]
    assert (added["rho"], added["adaptive"], added["lr"]) == (0.3, True, 0.1)


@pytest.mark.parametrize(
    "wrong",
    [{"rho": -0.1}, {"rho": float("nan")}, {"rho": float("inf")}, {"eta": -1.0}, {"sigma": -1.0},
     {"mean_decay": 1.0}, {"sigma": 1.0, "adaptive": True}],
)  # fmt: skip
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        SAM([vector(1)], SGD, lr=0.1, **wrong)
    with pytest.raises(ValueError):
        SAM([vector(1)], SGD, lr=0.1).add_param_group({"params": [vector(2)], **wrong})


def test_sam_holds_one_copy_of_the_weights_and_no_more() -> None:
    model = small_net()
    optimizer = SAM(model.parameters(), SGD, lr=0.1, rho=0.1, adaptive=True, eta=0.1)
    sam_step(model, optimizer, 0)
    held = sum(t.numel() for t in optimizer._neighbors.values())
    assert held == sum(p.numel() for p in model.parameters())


# --- batch norm


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


# --- an independent implementation in plain numpy: two layers, tanh, squared error


class NumpySam:
    """SAM and ASAM over SGD with momentum and weight decay, on a two-layer perceptron."""

    def __init__(self, values: list[np.ndarray], rhos, adaptive: bool, eta: float) -> None:
        self.values = [v.copy() for v in values]
        self.rhos, self.adaptive, self.eta = rhos, adaptive, eta
        self.momenta = [np.zeros_like(v) for v in values]

    @staticmethod
    def loss_and_gradients(values, x, y):
        w1, b1, w2, b2 = values
        hidden = np.tanh(x @ w1.T + b1)
        error = hidden @ w2.T + b2 - y
        d_out = 2 * error / error.size
        d_hidden = (d_out @ w2) * (1 - hidden**2)
        gradients = [d_hidden.T @ x, d_hidden.sum(0), d_out.T @ hidden, d_out.sum(0)]
        return (error**2).mean(), gradients

    def step(self, x, y) -> float:
        loss, gradients = self.loss_and_gradients(self.values, x, y)
        sizes = [np.abs(v) + self.eta if self.adaptive else np.ones_like(v) for v in self.values]
        norm = np.sqrt(sum(((t * g) ** 2).sum() for t, g in zip(sizes, gradients, strict=True)))
        neighbor = [
            v + rho * t**2 * g / norm
            for v, rho, t, g in zip(self.values, self.rhos, sizes, gradients, strict=True)
        ]
        _, gradients = self.loss_and_gradients(neighbor, x, y)
        for v, m, g in zip(self.values, self.momenta, gradients, strict=True):
            m[...] = 0.9 * m + g + 0.01 * v
            v -= 0.2 * m
        return float(loss)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("rhos", "adaptive", "eta"),
    [((0.3, 0.3), False, 0.0), ((0.5, 0.5), True, 0.0), ((0.5, 0.5), True, 0.1),
     ((0.4, 0.1), False, 0.0)],
)  # fmt: skip
def test_twenty_steps_agree_with_plain_numpy(rhos, adaptive: bool, eta: float, fused: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)).double()
    params = list(model.parameters())
    groups = [{"params": params[:2], "rho": rhos[0]}, {"params": params[2:], "rho": rhos[1]}]
    optimizer = SAM(
        groups, SGD, adaptive=adaptive, eta=eta, lr=0.2, momentum=0.9, weight_decay=0.01,
        fused=fused,
    )  # fmt: skip
    oracle = NumpySam(
        [p.detach().numpy() for p in params], [rhos[0]] * 2 + [rhos[1]] * 2, adaptive, eta
    )
    random = np.random.default_rng(0)
    for _ in range(20):
        x, y = random.normal(size=(16, 5)), random.normal(size=(16, 2))
        inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        with optimizer.at_worst_neighbor():
            nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.descend()
        optimizer.zero_grad()
        assert loss.item() == pytest.approx(oracle.step(x, y), abs=1e-10, rel=1e-10)
    for p, value in zip(params, oracle.values, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), value, atol=1e-10)
