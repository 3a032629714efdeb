"""What `auto` stands for, on hardware that is described here and on that of the test itself."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from samtune.training import amx
from samtune.training.loop import sam_step
from samtune.training.precision import SMALLEST_SCALE, LossScale, in_float32, resolve
from tests.conftest import Processor
from tests.training.test_sam_step import TASK, assert_same, batch, new_state

CPU = torch.device("cpu")
GPU = torch.device("cuda")


@pytest.mark.parametrize(
    ("amx_flag", "tiles", "avx512_bf16", "amd", "expected"),
    [
        (True, True, True, False, "bf16"),  # Sapphire Rapids
        (True, False, True, False, "fp32"),  # the same in a virtual machine without tiles
        (False, False, True, True, "bf16"),  # Zen 4
        (False, False, True, False, "fp32"),  # Cooper Lake: the instruction is there and slow
        (False, False, False, True, "fp32"),  # Zen 3
    ],
)
def test_auto_is_bf16_where_that_is_faster(
    processor: Processor, amx_flag, tiles, avx512_bf16, amd, expected
) -> None:
    processor.has(amx_flag=amx_flag, tiles=tiles, avx512_bf16=avx512_bf16, amd=amd)
    assert resolve("auto", CPU) == expected


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_auto_on_a_gpu_is_bf16_from_ampere_on(monkeypatch, capability, expected) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve("auto", GPU) == expected


@pytest.mark.parametrize("named", ["fp32", "bf16", "fp16"])
def test_a_named_precision_is_kept(named) -> None:
    assert resolve(named, CPU) == named


def test_outputs_of_several_parts_are_all_ready_for_a_loss() -> None:
    outputs = (torch.ones(2, dtype=torch.float16), [torch.ones(1, dtype=torch.bfloat16)], 3)
    first, (second,), third = in_float32(outputs)
    assert (first.dtype, second.dtype, third) == (torch.float32, torch.float32, 3)


def test_amx_without_tiles_is_ruled_out_unless_the_user_set_a_limit(
    processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(amx.LIMIT, "AVX2")  # so that monkeypatch puts back what was there
    processor.has(amx_flag=True, tiles=False, avx512_bf16=True, amd=False)
    amx.avoid_missing_amx()
    assert os.environ[amx.LIMIT] == "AVX2"
    del os.environ[amx.LIMIT]
    amx.avoid_missing_amx()
    assert os.environ[amx.LIMIT] == "AVX512_CORE_FP16"  # a word of oneDNN's, which ignores others


def test_a_users_limit_below_amx_makes_auto_fp32(
    processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor.has(amx_flag=True, tiles=True, avx512_bf16=True, amd=False)
    monkeypatch.setenv(amx.LIMIT, "AVX512_CORE_BF16")
    assert resolve("auto", CPU) == "fp32"


def test_a_bfloat16_layer_runs_on_this_machine() -> None:
    """In a process of its own: what fails here is an illegal instruction."""
    code = """
import torch
from samtune.training.precision import autocast
with autocast("bf16", torch.device("cpu")):
    torch.nn.Linear(64, 64)(torch.randn(32, 64)).float().sum().backward()
"""
    environment = {k: v for k, v in os.environ.items() if k != amx.LIMIT}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_the_loss_scale_stops_falling_before_it_is_0() -> None:
    scale = LossScale()
    for _ in range(1100):  # 2^16 is 1,091 halvings from the smallest float above 0
        scale.update(overflow=True)
    assert scale.scale == SMALLEST_SCALE
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.full((2,), 3 * SMALLEST_SCALE)
    scale.unscale([weight])
    assert weight.grad.tolist() == [3.0, 3.0]


def test_a_network_that_overflows_at_any_scale_skips_its_steps_and_counts_them() -> None:
    state = new_state(precision="fp16")
    inputs, targets = batch()
    before = {name: p.clone() for name, p in state.model.named_parameters()}
    for _ in range(50):
        sam_step(state, TASK, inputs * torch.nan, targets)
    assert state.optimizer.skipped_steps == 50
    assert state.loss_scale.scale == SMALLEST_SCALE
    assert_same(before, dict(state.model.named_parameters()))
