"""Several processes reach what one reaches, and all of them the same bit for bit."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import nn

from samtune.training.batch_norm import check_batch_norms
from samtune.training.ranks import ALONE, Ranks
from tests.training.several import in_ranks, reached, trial

DROPOUT = {"name": "several_net", "dropout": 0.3}
TRIALS: dict[str, dict[str, Any]] = {
    "parts climb alone": {"sam": {"micro_ascent": 4}},
    "parts climb alone, with dropout": {"model": DROPOUT, "sam": {"micro_ascent": 4}},
    "parts that do not divide": {"sam": {"micro_ascent": 5, "same_dropout": True}},
    "one part for two": {"sam": {"micro_ascent": 16}},
    "the whole batch climbs": {"model": "several_without_norm"},
    "batch norm of the whole batch": {},
    "batch norm of micro-batches": {"micro_batch_size": 5},
    "micro-batches with dropout": {"model": DROPOUT, "micro_batch_size": 4},
    "micro-batches of parts": {"micro_batch_size": 3, "sam": {"micro_ascent": 6}},
    "the optimizer alone": {"sam": {"rho": 0.0}},
    "now and then": {"sam": {"micro_ascent": 4, "every": 3, "start_fraction": 0.5}},
    "a share climbs": {"micro_batch_size": 4, "sam": {"ascent_fraction": 0.25}},
    "asam": {"sam": {"variant": "asam", "rho": 1.0}},
    "asam_eta": {"sam": {"variant": "asam_eta", "rho": 1.0, "micro_ascent": 8}},
    "fsam": {"sam": {"variant": "fsam"}},
    "msam": {"sam": {"variant": "msam"}},
    "sam_on": {"sam": {"variant": "sam_on"}},
    "sam_on in parts": {"sam": {"variant": "sam_on", "micro_ascent": 4}},
    "clipped": {"clip_grad_norm": 0.1, "sam": {"micro_ascent": 4}},
    "averaged": {"ema_decay": 0.8},
    "mixed images": {"mixup": 0.4, "cutmix": 1.0},
    "fp16": {"precision": "fp16", "micro_batch_size": 4, "model": "several_without_norm"},
    "bf16": {"precision": "bf16", "micro_batch_size": 4},
    "not finite in one part": {"model": "several_nan_at_mark", "sam": {"micro_ascent": 4}},
    "not finite in the batch": {"model": "several_nan_at_mark"},
}
LAX = {"fp16": 1e-3, "bf16": 1e-2}  # a rounding more or less in the gradients' sum moves them


@pytest.fixture(scope="module")
def in_two() -> dict[str, list[Any]]:
    """What either rank reaches with each trial."""
    ranks = in_ranks([trial(**settings) for settings in TRIALS.values()], 2)
    return dict(zip(TRIALS, map(list, zip(*ranks, strict=True)), strict=True))


def assert_near(one: Any, other: Any, tolerance: float, where: str = "") -> None:
    """Numbers and tensors in the same places of two states."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_near(one[key], other[key], tolerance, f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_near(a, b, tolerance, f"{where}[{i}]")
    elif isinstance(one, torch.Tensor):
        options = {"atol": tolerance, "rtol": tolerance, "equal_nan": True}
        torch.testing.assert_close(one, other, **options, msg=lambda m: f"{where}: {m}")
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance, nan_ok=True), where
    else:
        assert one == other, where


@pytest.mark.parametrize("name", TRIALS)
def test_two_processes_reach_what_one_does(name: str, in_two: dict[str, list[Any]]) -> None:
    """Metrics, weights, running statistics, momentum, means, loss scale and skipped steps."""
    config = trial(**TRIALS[name])
    (metrics, state), (_, other) = in_two[name]
    alone, alone_state = reached(config, ALONE)
    tolerance = LAX.get(config.training.precision, 1e-5)
    assert_near(metrics, alone, tolerance)
    assert_near(state, alone_state, tolerance)
    for part in state.keys() - {"average"}:  # whose statistics are those of who evaluates it
        assert_near(state[part], other[part], 0.0, part)


def test_what_one_rank_alone_finds_not_finite_skips_the_step_of_all(
    in_two: dict[str, list[Any]],
) -> None:
    """One image of an epoch's 64 cannot be computed, and is in one part of one batch."""
    for name in ("not finite in one part", "not finite in the batch"):
        for _, state in in_two[name]:
            assert state["optimizer"]["skipped_steps"] == 2
            assert all(tensor.isfinite().all() for tensor in state["model"].values())
        assert [m["skipped_steps"] for m in in_two[name][0][0]] == [1, 1]
        assert all(math.isnan(m["train_loss"]) for m in in_two[name][0][0])


@pytest.mark.slow  # for what compiling takes
def test_a_compiled_model_is_normalised_together_too() -> None:
    config = trial(compile=True)
    first, other = in_ranks([config], 2)
    assert_near(first[0], reached(config, ALONE), 1e-5)
    assert_near(other[0][1], first[0][1], 0.0)


@pytest.mark.slow  # for the seconds that torchmetrics takes to import
def test_masks_are_measured_by_the_first_rank_alone() -> None:
    config = trial("several_masks")
    first, other = in_ranks([config], 2)
    assert_near(first[0], reached(config, ALONE), 1e-5)
    assert_near(other[0][1], first[0][1], 0.0)


def test_three_processes_share_what_two_cannot_halve() -> None:
    configs = [trial(sam={"micro_ascent": 3}), trial(), trial(micro_batch_size=8)]
    ranks = in_ranks(configs, 3)
    for i, config in enumerate(configs):
        metrics, state = reached(config, ALONE)
        assert_near(ranks[0][i], (metrics, state), 1e-5)
        for rank in (1, 2):
            assert_near(ranks[rank][i][1], ranks[0][i][1], 0.0)


def test_parts_are_dealt_whole_in_order_and_none_is_left() -> None:
    for count in range(9):
        for size in (1, 2, 3, 4):
            dealt = [Ranks(rank, size).own("abcdefgh"[:count]) for rank in range(size)]
            assert [*itertools.chain(*dealt)] == list(enumerate("abcdefgh"[:count]))
            assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_a_model_that_several_processes_cannot_add_up_is_refused_by_name() -> None:
    for found in in_ranks([trial("several_counting"), trial()], 2):
        assert "after an epoch seen is not the same in all 2 processes" in found[0]
        assert "study.resources.gpus: 1" in found[0]
        assert not isinstance(found[1], str)  # which leaves nothing behind


class OwnNorm(nn.BatchNorm2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input).relu()


@pytest.mark.parametrize(
    ("module", "images", "message"),
    [
        (OwnNorm(3), 8, "0 is a OwnNorm, which computes in its own way.*micro_batch_size"),
        (nn.SyncBatchNorm(3), None, "0 is a SyncBatchNorm.*use BatchNorm"),
        (nn.BatchNorm2d(3, momentum=None), None, "0 is a BatchNorm2d without momentum"),
        (nn.BatchNorm2d(3), 3, "3 images are too few for 4 processes"),
    ],
)
def test_batch_norms_that_would_be_another_function_are_refused(
    module: nn.Module, images: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_batch_norms(nn.Sequential(module), 4, images)
    check_batch_norms(nn.Sequential(module).eval(), 4, images)  # it normalises by what it knows


@pytest.mark.parametrize(
    ("module", "images"),
    [
        (OwnNorm(3), None),
        (nn.BatchNorm2d(3, momentum=None), 8),
        (nn.BatchNorm2d(3), 4),
        (nn.GroupNorm(3, 3), 1),
    ],
)
def test_all_others_are_not(module: nn.Module, images: int | None) -> None:
    check_batch_norms(nn.Sequential(module), 4, images)
