"""The training loop: each way to make a step, against the plainest way to write it down."""

from __future__ import annotations

import copy
import shutil
from functools import partialmethod
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from samtune.config.trial import TrialConfig
from samtune.data import DataSplits, Images
from samtune.registry import register_model
from samtune.sam import SAM, frozen_batchnorm_stats
from samtune.tasks import Classification
from samtune.training.loop import evaluate, sam_step, train
from samtune.training.precision import LossScale
from samtune.training.state import TrainingState, set_up

CPU = torch.device("cpu")
TASK = Classification()


@register_model("test_net")
def net_for_tests(*, in_channels: int, num_classes: int, dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout),
        nn.Flatten(), nn.Linear(4 * 16, num_classes),
    )  # fmt: skip


@register_model("test_net_without_norm")
def net_without_norm(*, in_channels: int, num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, num_classes)
    )


@register_model("test_net_with_weight_norm")
def net_with_weight_norm(*, in_channels: int, num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(in_channels, 4, 3)),
        nn.Flatten(), nn.Linear(64, num_classes),
    )  # fmt: skip


@register_model("test_net_without_weights")
class NetWithoutWeights(nn.Module):
    def __init__(self, *, num_classes: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(num_classes))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scores.expand(len(inputs), -1)


def splits() -> DataSplits:
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> Images:
        return Images(
            torch.randint(0, 256, (count, 6, 6, 1), dtype=torch.uint8, generator=generator),
            torch.randint(0, 3, (count,), generator=generator),
        )

    train_part, val = part(64), part(20)
    return DataSplits(
        task="classification", num_classes=3, train=train_part, val=val, open_test=lambda: val,
        mean=(0.5,), std=(0.29,),
    )  # fmt: skip


DATA = splits()


def trial(
    *, model: Any = "test_net", optimizer: dict[str, Any] | None = None,
    sam: dict[str, Any] | None = None, **training: Any,
) -> TrialConfig:  # fmt: skip
    return TrialConfig.model_validate(
        {
            "model": {"name": model} if isinstance(model, str) else model,
            "dataset": {"name": "digits"},
            "optimizer": optimizer or {"name": "sgd", "lr": 0.1, "momentum": 0.9},
            "sam": {"rho": 0.3, **(sam or {})},
            "training": {"epochs": 2, "batch_size": 16, "precision": "fp32", **training},
        }
    )


def new_state(**settings: Any) -> TrainingState:
    return set_up(trial(**settings), DATA, CPU)


def batch(size: int = 16) -> tuple[Tensor, Tensor]:
    return next(iter(DATA.train_batches(size, CPU).shuffled(0)))


def weights(state: TrainingState) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.model.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def assert_near(one: dict[str, Tensor], other: dict[str, Tensor], atol: float = 1e-6) -> None:
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=atol, rtol=1e-5)


def stepped(**settings: Any) -> dict[str, Tensor]:
    state = new_state(**settings)
    for _ in range(3):
        sam_step(state, TASK, *batch())
    return weights(state)


def epochs(config: TrialConfig, state: TrainingState | None = None) -> TrainingState:
    state = state or set_up(config, DATA, CPU)
    for _ in train(state, config, DATA, CPU):
        pass
    return state


def test_a_step_is_two_passes_around_one_climb() -> None:
    state = new_state()
    model = copy.deepcopy(state.model)
    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.3, lr=0.1, momentum=0.9)
    inputs, targets = batch()
    expected = nn.functional.cross_entropy(model(inputs), targets)
    expected.backward()
    with optimizer.at_worst_neighbor(), frozen_batchnorm_stats(model):
        nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.descend()
    loss = sam_step(state, TASK, inputs, targets)
    assert torch.equal(loss, expected.detach())
    assert_same(weights(state), model.state_dict())
    assert all(p.grad is None for p in state.model.parameters())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sam": {"variant": "asam", "rho": 1.0}},
        {"sam": {"variant": "asam_eta", "rho": 1.0}},
        {"sam": {"variant": "fsam"}},
        {"sam": {"variant": "msam"}},
        {"sam": {"variant": "sam_on"}},
        {"sam": {"every": 3}},
        {"sam": {"start_fraction": 0.5}},
        {"sam": {"ascent_fraction": 0.25, "same_dropout": True}},
        {"sam": {"ascent_precision": "bf16"}},
        {"sam": {"micro_ascent": 5, "same_dropout": True}},
        {"warmup_epochs": 1.25, "lr_interval": "step"},
        {"decay_norms_and_biases": False, "sam": {"variant": "asam_eta"}},
        {"ema_decay": 0.9},
        {"average_from": 0.0},
        {"micro_batch_size": 5, "clip_grad_norm": 0.5},
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"optimizer": {"name": "adamw", "lr": 0.01}},
    ],
    ids=str,
)
def test_resuming_equals_never_stopping_bit_for_bit(settings: dict[str, Any]) -> None:
    config = trial(model={"name": "test_net", "dropout": 0.2}, **settings)
    straight, stopped = set_up(config, DATA, CPU), set_up(config, DATA, CPU)
    results = list(train(straight, config, DATA, CPU))
    first = next(train(stopped, config, DATA, CPU))
    resumed = set_up(config, DATA, CPU)
    resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
    torch.manual_seed(999)
    rest = list(train(resumed, config, DATA, CPU))
    assert [r.metrics for r in [first, *rest]] == [r.metrics for r in results]
    assert_same(weights(straight), weights(resumed))


def test_rho_0_is_the_optimizer_alone_in_every_variant() -> None:
    plain = stepped(sam={"rho": 0.0})
    for variant in ("asam", "asam_eta", "sam_on", "msam", "fsam"):
        assert_same(plain, stepped(sam={"rho": 0.0, "variant": variant}))


def test_variants_differ_from_each_other() -> None:
    found = [stepped(sam={"variant": v})["0.weight"] for v in
             ("sam", "asam", "asam_eta", "sam_on", "msam", "fsam")]  # fmt: skip
    assert len({tuple(w.flatten().tolist()) for w in found}) == 6


def test_asam_eta_leaves_biases_out_of_the_relative_distance() -> None:
    optimizer = new_state(sam={"variant": "asam_eta"}).optimizer
    weighted, rest = optimizer.param_groups
    assert [p.dim() for p in weighted["params"]] == [4, 1, 2]
    assert (weighted["adaptive"], rest["adaptive"], weighted["eta"]) == (True, False, 0.01)
    assert [p.dim() for p in rest["params"]] == [1, 1, 1]


def test_asam_eta_finds_weights_that_are_computed_of_others() -> None:
    optimizer = new_state(model="test_net_with_weight_norm", sam={"variant": "asam_eta"}).optimizer
    weighted, rest = optimizer.param_groups
    # The lengths and the directions of the first layer's weights, and the weights of the second.
    assert [tuple(p.shape) for p in weighted["params"]] == [(4, 1, 1, 1), (4, 1, 3, 3), (3, 64)]
    assert [tuple(p.shape) for p in rest["params"]] == [(4,), (3,)]


def test_asam_eta_is_refused_where_no_parameter_is_a_weight() -> None:
    with pytest.raises(ValueError, match="this model has none"):
        new_state(model="test_net_without_weights", sam={"variant": "asam_eta"})


def test_sam_on_needs_norm_layers() -> None:
    with pytest.raises(ValueError, match="has none"):
        new_state(model="test_net_without_norm", sam={"variant": "sam_on"})


def test_msam_takes_one_pass_and_leaves_the_weights_at_home() -> None:
    state = new_state(sam={"variant": "msam", "rho": 1.0})
    sam_step(state, TASK, *batch())
    home = weights(state)["0.weight"]
    passes = []
    state.model.register_forward_hook(lambda *_: passes.append(state.model[0].weight.clone()))
    sam_step(state, TASK, *batch())
    [at_neighbor] = passes
    assert not torch.equal(at_neighbor, home)
    assert state.model[1].num_batches_tracked == 2


def test_sam_every_third_step_and_only_after_its_start() -> None:
    config = trial(sam={"every": 3, "start_fraction": 0.5}, epochs=2)
    state = set_up(config, DATA, CPU)
    passes: list[tuple[int, int]] = []
    state.model.register_forward_hook(
        lambda *_: passes.append((state.epoch, state.steps)) if state.model.training else None
    )
    epochs(config, state)
    # Four steps an epoch: plain in the first, SAM in step 6 of the second.
    assert passes == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 4), (1, 5), (1, 6), (1, 6), (1, 7)]


def test_a_climb_on_a_quarter_sees_a_quarter_and_statistics_are_those_at_the_weights() -> None:
    state, fresh = new_state(sam={"ascent_fraction": 0.25, "rho": 10.0}), new_state()
    seen = []
    state.model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    inputs, targets = batch()
    loss = sam_step(state, TASK, inputs, targets)
    assert seen == [4, 16]
    expected = nn.functional.cross_entropy(fresh.model(inputs[:4]), targets[:4])
    assert torch.equal(loss, expected.detach())
    assert_same(dict(state.model.named_buffers()), dict(fresh.model.named_buffers()))


def test_micro_batches_add_up_to_the_batch() -> None:
    whole = stepped(model="test_net_without_norm")
    parts = stepped(model="test_net_without_norm", micro_batch_size=5)
    assert_near(whole, parts)
    one, other = (
        sam_step(new_state(model="test_net_without_norm", **more), TASK, *batch())
        for more in ({}, {"micro_batch_size": 5})
    )
    torch.testing.assert_close(one, other)


def test_the_step_is_clipped_and_the_climb_is_not() -> None:
    state = new_state(optimizer={"name": "sgd", "lr": 1.0}, clip_grad_norm=0.01)
    before = weights(state)
    moved = []
    state.model.register_forward_hook(lambda *_: moved.append(state.model[0].weight.clone()))
    sam_step(state, TASK, *batch())
    step = [p.detach() - before[name] for name, p in state.model.named_parameters()]
    assert torch.cat([s.flatten() for s in step]).norm().item() == pytest.approx(0.01, rel=1e-4)
    assert (moved[1] - moved[0]).norm() > 0.05


def test_both_passes_drop_the_same_units_where_that_is_wanted() -> None:
    for same in (True, False):
        state = new_state(
            model={"name": "test_net", "dropout": 0.5},
            sam={"same_dropout": same, "rho": 1e-9},
        )
        dropped: list[Tensor] = []
        state.model[3].register_forward_hook(
            lambda _, __, output, dropped=dropped: dropped.append(output == 0)
        )
        for _ in range(2):
            sam_step(state, TASK, *batch())
        assert torch.equal(dropped[0], dropped[1]) == same
        assert not torch.equal(dropped[0], dropped[2])  # a new mask each step


def test_fp16_with_a_scaled_loss_takes_the_same_steps_as_fp32_up_to_rounding() -> None:
    assert_near(stepped(precision="fp32"), stepped(precision="fp16"), atol=0.02)


def test_scaling_and_unscaling_the_loss_rounds_nothing() -> None:
    scaled, plain = (nn.Parameter(torch.tensor([0.1, -3.3, 7e-5])) for _ in range(2))
    scale = LossScale()
    (scaled.pow(3).sum() * scale.scale).backward()
    scale.unscale([scaled])
    plain.pow(3).sum().backward()
    assert torch.equal(scaled.grad, plain.grad)


def test_an_overflow_under_fp16_skips_the_step_and_halves_the_scale() -> None:
    state = new_state(precision="fp16")
    before = {n: p.clone() for n, p in state.model.named_parameters()}
    state.loss_scale.scale = 2.0**140  # beyond float32
    sam_step(state, TASK, *batch())
    assert state.optimizer.skipped_steps == 1
    assert state.loss_scale.scale == 2.0**139
    assert_same(before, dict(state.model.named_parameters()))


def test_the_loss_scale_doubles_after_a_run_of_good_steps() -> None:
    scale = LossScale(scale=4.0, patience=2)
    for overflow, expected in ((False, 4), (False, 8), (True, 4), (False, 4), (False, 8)):
        scale.update(overflow=overflow)
        assert scale.scale == expected


def test_bf16_computes_in_bf16_and_keeps_weights_and_losses_in_fp32() -> None:
    state = new_state(precision="bf16")
    kinds = []
    state.model[0].register_forward_hook(lambda _, __, output: kinds.append(output.dtype))
    loss = sam_step(state, TASK, *batch())
    assert kinds == [torch.bfloat16, torch.bfloat16]
    assert loss.dtype == torch.float32
    assert {p.dtype for p in state.model.parameters()} == {torch.float32}


def test_a_climb_in_bf16_leaves_the_update_in_fp32() -> None:
    state = new_state(sam={"ascent_precision": "bf16"})
    kinds = []
    state.model[0].register_forward_hook(lambda _, __, output: kinds.append(output.dtype))
    sam_step(state, TASK, *batch())
    assert kinds == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_evaluating_again_gives_the_same_numbers(precision: Any) -> None:
    config = trial(precision=precision)
    state = set_up(config, DATA, CPU)
    *_, last = train(state, config, DATA, CPU)
    fresh = set_up(config, DATA, CPU)
    fresh.model.load_state_dict(state.model.state_dict())
    again = evaluate(fresh.model, TASK, DATA.val_batches(16, CPU), fresh.precision)
    assert again == {k: v for k, v in last.metrics.items() if k.startswith("val_")}


def test_the_layout_changes_no_more_than_rounding() -> None:
    assert_near(stepped(channels_last=True), stepped(channels_last=False), atol=1e-5)


def test_an_exception_in_the_second_pass_leaves_everything_as_it_was() -> None:
    state = new_state()
    sam_step(state, TASK, *batch())
    before = {n: p.clone() for n, p in state.model.named_parameters()}
    momenta = [s["momentum_buffer"].clone() for s in state.optimizer.state.values()]
    calls = []

    def fail_in_second(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError

    state.model.register_forward_hook(fail_in_second)
    with pytest.raises(ZeroDivisionError):
        sam_step(state, TASK, *batch())
    assert_same(before, dict(state.model.named_parameters()))
    assert all(
        torch.equal(a, s["momentum_buffer"])
        for a, s in zip(momenta, state.optimizer.state.values(), strict=True)
    )
    assert all(p.grad is None for p in state.model.parameters())
    assert state.model[1].track_running_stats


def test_fused_is_the_default_and_the_users_word_wins() -> None:
    assert new_state().optimizer.param_groups[0]["fused"] is True
    own = {"name": "sgd", "lr": 0.1, "fused": False}
    assert new_state(optimizer=own).optimizer.param_groups[0]["fused"] is False
    other = {"name": "rmsprop", "lr": 0.1}
    assert "fused" not in new_state(optimizer=other).optimizer.param_groups[0]


def test_a_fused_step_is_the_same_step_up_to_rounding() -> None:
    own = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
    assert_near(stepped(optimizer=own), stepped(optimizer={**own, "fused": False}))


@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",  # the graphs, without their code
        pytest.param(
            "inductor",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(shutil.which("g++") is None, reason="it takes g++ on CPUs"),
            ],
        ),
    ],
)
def test_a_compiled_model_makes_the_same_steps(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.compiler.reset()
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=backend))
    losses = {}
    for compiled in (False, True):
        state = set_up(trial(compile=compiled), DATA, CPU)
        batches = DATA.train_batches(16, CPU)
        losses[compiled] = [sam_step(state, TASK, x, y).item() for x, y in batches.shuffled(0)]
    assert losses[True] == pytest.approx(losses[False], abs=1e-5)
    assert next(iter(state.model.state_dict())) == "0.weight"  # saved weights fit the plain model
