"""What decays and what does not, by one step of plain arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from samtune.models import build_model
from samtune.registry import register_model
from samtune.training.loop import sam_step
from samtune.training.state import norms_and_biases
from tests.training.test_sam_step import TASK, batch, new_state

LR, DECAY = 0.1, 0.5
SGD = {"name": "sgd", "lr": LR, "weight_decay": DECAY}


def decays(**settings: Any) -> dict[str, bool]:
    """Each parameter, and whether a step took lr * decay * w from it beyond the gradient's part."""
    found = {}
    steps = {}
    for decay in (0.0, DECAY):
        state = new_state(optimizer={**SGD, "weight_decay": decay}, **settings)
        nn.init.constant_(state.model[1].bias, 0.3)  # type: ignore[index, arg-type]
        before = {n: p.detach().clone() for n, p in state.model.named_parameters()}
        sam_step(state, TASK, *batch())
        steps[decay] = {n: p.detach() - before[n] for n, p in state.model.named_parameters()}
    for name, weight in before.items():
        difference = steps[DECAY][name] - steps[0.0][name]
        found[name] = not torch.equal(difference, torch.zeros_like(weight))
        expected = -LR * DECAY * weight * found[name]
        torch.testing.assert_close(difference, expected, atol=1e-6, rtol=1e-5)
    return found


VARIANTS = [{}, {"variant": "asam_eta"}, {"variant": "sam_on"}, {"rho": 0.0}]


@pytest.mark.parametrize("sam", VARIANTS, ids=str)
def test_norms_and_biases_decay_unless_told_otherwise(sam: dict[str, Any]) -> None:
    assert all(decays(sam=sam).values())
    found = decays(sam=sam, decay_norms_and_biases=False)
    assert [name for name, decayed in found.items() if decayed] == ["0.weight", "5.weight"]


def test_the_groups_of_asam_eta_stay_what_they_are() -> None:
    state = new_state(sam={"variant": "asam_eta"}, decay_norms_and_biases=False, optimizer=SGD)
    groups = [
        (group["adaptive"], group["weight_decay"], [p.dim() for p in group["params"]])
        for group in state.optimizer.param_groups
    ]
    assert groups == [
        (True, DECAY, [4, 2]),
        (True, 0.0, [1]),  # the norm's weight
        (False, 0.0, [1, 1, 1]),
    ]


def test_by_default_there_is_one_group() -> None:
    assert len(new_state(optimizer=SGD).optimizer.param_groups) == 1


@register_model("test_net_with_lazy_layers")
def net_with_lazy_layers(*, num_classes: int) -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(num_classes)).eval()


def test_lazy_layers_see_an_image_before_training() -> None:
    model = new_state(model="test_net_with_lazy_layers").model
    assert [tuple(p.shape) for p in model.parameters()] == [(4, 1, 3, 3), (4,), (3, 64), (3,)]
    assert model.training


def test_no_other_model_sees_anything_before_training() -> None:
    seen: list[nn.Module] = []
    with nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(module)):
        new_state()
    assert seen == []


@pytest.mark.parametrize(
    ("asked", "fused"), [({}, True), ({"fused": False}, False), ({"differentiable": True}, False)]
)
def test_sgd_is_fused_unless_it_was_asked_for_what_excludes_it(
    asked: dict[str, bool], fused: bool
) -> None:
    [group] = new_state(optimizer={**SGD, **asked}).optimizer.param_groups
    assert group["fused"] is fused


def test_a_norm_over_whole_images_is_known_by_its_type() -> None:
    model = nn.Sequential(nn.LayerNorm((1, 6, 6)), nn.Flatten(), nn.Linear(36, 3))
    assert norms_and_biases(model) == {model[0].weight, model[0].bias, model[2].bias}


def test_of_a_wide_resnet_the_kernels_and_the_last_matrix_decay() -> None:
    model = build_model("wide_resnet", in_channels=3, num_classes=10, depth=10, width_factor=1)
    decayed = set(model.parameters()) - norms_and_biases(model)
    kernels = {m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert decayed == kernels


def test_an_optimizer_without_decay_takes_the_setting_and_has_nothing_to_do() -> None:
    state = new_state(optimizer={"name": "rprop", "lr": 0.01}, decay_norms_and_biases=False)
    sam_step(state, TASK, *batch())
    assert state.optimizer.skipped_steps == 0
