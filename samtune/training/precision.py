"""In which numbers a model computes: float32, bfloat16, or float16 with a scaled loss.

Weights, their gradients and the optimizer stay float32; only the layers in between are lowered.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from samtune.training.amx import avoid_missing_amx, has_amx

avoid_missing_amx()  # here, since samtune runs no layer before it has imported this

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# A gradient that still overflows float16 here is above 2^40: no scale brings it into range.
SMALLEST_SCALE = 2.0**-24


def resolve(precision: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """What `auto` stands for on this device; everything else is itself."""
    if precision != "auto":
        return precision
    return "bf16" if has_fast_bf16(device) else "fp32"


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 faster than float32.

    On CPUs the instruction alone says little: a training step of WRN-16-2 took 0.42 of float32's
    time on an AMD Zen 4 with avx512_bf16, and 1.38 on an Intel Xeon with avx512_bf16 but no AMX.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu":
        return False
    return has_amx() or (torch.cpu._is_avx512_bf16_supported() and _is_amd())


@cache
def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Runs what is inside in this precision; fp32 changes nothing."""
    lowered = precision != "fp32"
    dtype = DTYPES.get(precision, torch.bfloat16)
    return torch.autocast(device.type, dtype=dtype, enabled=lowered)


def in_float32(outputs: Any) -> Any:
    """A model's outputs, one tensor or several, ready for a loss in full precision."""
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.dtype in DTYPES.values() else outputs
    if isinstance(outputs, tuple | list):
        return tuple(in_float32(output) for output in outputs)
    return outputs


class LossScale:
    """Keeps float16 gradients in range: they are computed of the loss times a power of two.

    An overflow halves the scale, and 2,000 steps without one double it (Micikevicius et al. 2018,
    arXiv:1710.03740). Powers of two, so scaling rounds nothing. At `SMALLEST_SCALE` it stays: what
    overflows there is not finite in other precisions either, and its steps are skipped as theirs
    are, each counted in `skipped_steps`.
    """

    def __init__(self, scale: float = 2.0**16, patience: int = 2000) -> None:
        self.scale = scale
        self._patience = patience
        self._good_steps = 0

    def unscale(self, params: Iterable[Tensor]) -> None:
        """Turns the gradients of the scaled loss into the loss's own."""
        grads = [p.grad for p in params if p.grad is not None]
        torch._foreach_mul_(grads, 1 / self.scale)

    def update(self, *, overflow: bool) -> None:
        """Learns from one step."""
        self._good_steps = 0 if overflow else self._good_steps + 1
        if overflow:
            self.scale = max(self.scale / 2, SMALLEST_SCALE)
        elif self._good_steps == self._patience:
            self.scale *= 2
            self._good_steps = 0

    def state_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return {"scale": self.scale, "good_steps": self._good_steps}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continues where `state_dict` was taken."""
        self.scale, self._good_steps = state["scale"], int(state["good_steps"])
