"""m-sharpness: each part of a batch climbs by itself; against its definition in plain torch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from samtune.config.trial import SamConfig
from samtune.training.loop import sam_step
from tests.training.test_sam_step import (
    TASK,
    assert_near,
    assert_same,
    batch,
    epochs,
    new_state,
    stepped,
    trial,
    weights,
)

RHO, LR = 0.3, 0.1


def by_hand(model: nn.Module, inputs: Tensor, targets: Tensor, size: int, share: float) -> None:
    """w less lr times the mean over the images of their gradient at w + rho g / ||g||.

    g is the gradient of the part that an image belongs to, or of the first `share` of it.
    """

    def gradient(at: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(cross_entropy(at(x), y), list(at.parameters())))

    total = [torch.zeros_like(p) for p in model.parameters()]
    for x, y in zip(inputs.split(size), targets.split(size), strict=True):
        few = max(2, round(share * len(x)))
        climb = gradient(model, x[:few], y[:few])  # batch norm's statistics are of these passes
        norm = torch.cat([g.flatten() for g in climb]).norm()
        neighbor = copy.deepcopy(model)
        with torch.no_grad():
            for p, g in zip(neighbor.parameters(), climb, strict=True):
                p.add_(RHO * g / norm)
        for found, g in zip(total, gradient(neighbor, x, y), strict=True):
            found.add_(len(x) * g)
    with torch.no_grad():
        for p, found in zip(model.parameters(), total, strict=True):
            p.sub_(LR * found / len(inputs))


@pytest.mark.parametrize("size", [4, 6, 16])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_each_part_climbs_by_itself_and_the_gradients_are_averaged(size: int, share: float) -> None:
    state = new_state(
        sam={"micro_ascent": size, "rho": RHO, "ascent_fraction": share},
        optimizer={"name": "sgd", "lr": LR},
    )
    model = copy.deepcopy(state.model)
    inputs, targets = batch()
    for _ in range(2):
        sam_step(state, TASK, inputs, targets)
        by_hand(model, inputs, targets, size, share)
    assert_near(weights(state), model.state_dict())


def test_a_part_as_large_as_the_batch_is_plain_sam_bit_for_bit() -> None:
    assert_same(stepped(sam={"micro_ascent": 16}), stepped())


def test_small_parts_are_not_plain_sam() -> None:
    small, plain = stepped(sam={"micro_ascent": 4}), stepped()
    assert not torch.allclose(small["0.weight"], plain["0.weight"], atol=1e-4)


def test_the_loss_is_the_mean_at_the_weights() -> None:
    state, plain = (new_state(model="test_net_without_norm", sam=sam)
                    for sam in ({"micro_ascent": 5}, {}))  # fmt: skip
    losses = [sam_step(s, TASK, *batch()).item() for s in (state, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_every_part_is_seen_twice_in_turn_and_counted_once() -> None:
    state = new_state(sam={"micro_ascent": 6})
    seen: list[int] = []
    state.model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    sam_step(state, TASK, *batch())
    assert seen == [6, 6, 6, 6, 4, 4]
    norm: Any = state.model[1]  # type: ignore[index]
    assert norm.num_batches_tracked == 3


def test_micro_batches_for_want_of_memory_split_the_parts_further() -> None:
    settings: dict[str, Any] = {"model": "test_net_without_norm", "sam": {"micro_ascent": 8}}
    assert_near(stepped(**settings), stepped(**settings, micro_batch_size=3))
    assert_near(stepped(**settings), stepped(**settings, micro_batch_size=12))


def test_fp16_takes_the_same_steps_up_to_rounding() -> None:
    found = []
    for precision in ("fp32", "fp16"):
        state = new_state(sam={"micro_ascent": 4}, precision=precision)
        state.loss_scale.scale = 2.0**10  # where nothing overflows
        for _ in range(3):
            sam_step(state, TASK, *batch())
        assert state.optimizer.skipped_steps == 0
        found.append(weights(state))
    assert_near(*found, atol=0.02)


def test_an_overflow_in_a_part_lowers_the_scale_of_the_loss() -> None:
    state = new_state(sam={"micro_ascent": 4}, precision="fp16")
    before = weights(state)["0.weight"]
    state.loss_scale.scale = 2.0**140
    sam_step(state, TASK, *batch())
    assert (state.optimizer.skipped_steps, state.loss_scale.scale) == (1, 2.0**139)
    assert torch.equal(weights(state)["0.weight"], before)


@pytest.mark.parametrize("image", [0, 7, 15])
def test_a_part_whose_gradient_is_not_finite_skips_the_step(image: int) -> None:
    state = new_state(model="test_net_without_norm", sam={"micro_ascent": 4})
    before = weights(state)
    inputs, targets = batch()
    broken = inputs.clone()
    broken[image] = torch.nan
    sam_step(state, TASK, broken, targets)
    assert state.optimizer.skipped_steps == 1
    assert_same(weights(state), before)
    sam_step(state, TASK, inputs, targets)
    assert state.optimizer.skipped_steps == 1
    assert not torch.equal(weights(state)["0.weight"], before["0.weight"])


def test_plain_steps_between_see_the_whole_batch() -> None:
    config = trial(sam={"micro_ascent": 8, "every": 4}, epochs=1)
    state = new_state(sam={"micro_ascent": 8, "every": 4})
    seen: list[int] = []
    state.model.register_forward_hook(
        lambda _, inputs, __: seen.append(len(inputs[0])) if state.model.training else None
    )
    epochs(config, state)
    assert seen == [8, 8, 8, 8, 16, 16, 16]


@pytest.mark.parametrize("same", [True, False])
def test_the_parts_drop_units_of_their_own(same: bool) -> None:
    state = new_state(
        model={"name": "test_net", "dropout": 0.5},
        sam={"micro_ascent": 8, "same_dropout": same, "rho": 1e-9},
    )
    dropped: list[Tensor] = []
    layer: Any = state.model[3]  # type: ignore[index]
    layer.register_forward_hook(lambda _, __, output: dropped.append(output == 0))
    layer.register_forward_pre_hook(lambda _, inputs: (torch.ones_like(inputs[0]),))
    sam_step(state, TASK, *batch())
    first, first_again, second, second_again = dropped
    assert torch.equal(first, first_again) == same
    assert torch.equal(second, second_again) == same
    assert not torch.equal(first, second)


@pytest.mark.parametrize("variant", ["msam", "fsam"])
def test_a_climb_that_is_no_batchs_own_is_refused(variant: str) -> None:
    with pytest.raises(ValueError, match=f"micro_ascent .* {variant}"):
        SamConfig.model_validate({"variant": variant, "micro_ascent": 8})


@pytest.mark.parametrize("variant", ["asam", "asam_eta", "sam_on"])
def test_the_other_variants_climb_in_parts(variant: str) -> None:
    parts = stepped(sam={"variant": variant, "micro_ascent": 4})
    whole = stepped(sam={"variant": variant})
    assert not torch.equal(parts["0.weight"], whole["0.weight"])
    assert all(value.isfinite().all() for value in parts.values())
