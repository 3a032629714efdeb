"""What one trial occupies: `study.resources`."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from samtune.config.base import NAME_PATTERN, Config
from samtune.registry import Count

MOST = 1024  # CPUs or GPUs of one trial, which starts as many threads
MEMORY_UNITS = {
    **{f"{prefix}B": 1000**i for i, prefix in enumerate(("k", "M", "G", "T"), 1)},
    **{f"{prefix}iB": 1024**i for i, prefix in enumerate(("K", "M", "G", "T"), 1)},
}
RAYS_OWN_RESOURCES = ("CPU", "GPU", "memory", "object_store_memory")


class ResourcesConfig(Config):
    """What one trial occupies.

    Attributes:
        cpus: processor cores; as many threads compute.
        gpus: fractions of one share it; several compute each batch together; `auto` is one where
            there are any.
        memory: bytes, written with a unit as in `4GiB`; Ray puts trials on nodes by it, and holds
            no trial to it.
        accelerator_type: as Ray calls a kind of GPU, `A100` or `H100`; only nodes with it are used.
        custom: amounts of what nodes were started with under `ray start --resources`.
    """

    cpus: Annotated[Count, Field(le=MOST)] = 1
    gpus: Literal["auto"] | float = "auto"
    memory: str | None = None
    accelerator_type: Annotated[str, Field(pattern=NAME_PATTERN)] | None = None
    custom: dict[str, float] = Field(default_factory=dict)

    @field_validator("gpus", mode="before")
    @classmethod
    def _a_number_or_auto(cls, gpus: Any) -> Any:
        if gpus == "auto":
            return gpus
        if isinstance(gpus, bool) or not isinstance(gpus, int | float) or not 0 <= gpus <= MOST:
            raise ValueError(f"must be auto or a number from 0 to {MOST}, got {gpus!r}")
        if gpus > 1 and gpus % 1:
            raise ValueError(f"must be at most 1 or a whole number, got {gpus}")
        return float(gpus)

    @field_validator("memory", mode="before")
    @classmethod
    def _a_size(cls, memory: Any) -> Any:
        if memory is not None and not (isinstance(memory, str) and _bytes_of(memory)):
            units = ", ".join(MEMORY_UNITS)
            raise ValueError(f"must be a size with a unit ({units}), as in 4GiB, got {memory!r}")
        return memory

    @field_validator("custom", mode="before")
    @classmethod
    def _amounts(cls, custom: Any) -> Any:
        for name, amount in custom.items() if isinstance(custom, dict) else ():
            if name in RAYS_OWN_RESOURCES or ":" in str(name):
                raise ValueError(f"{name!r} is Ray's own and must not be set here")
            is_number = isinstance(amount, int | float) and not isinstance(amount, bool)
            if not is_number or not 0 < amount < math.inf or (amount > 1 and amount % 1):
                raise ValueError(
                    f"{name!r} must be above 0, and a whole number above 1, got {amount!r}"
                )
        return custom

    def __str__(self) -> str:
        gpus = "one GPU where there are any" if self.gpus == "auto" else f"{self.gpus:g} GPUs"
        kind = f" of type {self.accelerator_type}" if self.accelerator_type else ""
        parts = [f"{self.cpus} CPUs", f"{gpus}{kind}"]
        parts += [f"{self.memory} of memory"] if self.memory else []
        parts += [f"{amount:g} of {name}" for name, amount in self.custom.items()]
        return ", ".join(parts)

    @property
    def whole_gpus(self) -> int:
        """How many GPUs a trial has to itself at least."""
        return 0 if self.gpus == "auto" else int(self.gpus)

    @property
    def memory_bytes(self) -> int:
        """What `memory` comes to; 0 where nothing is asked for."""
        return _bytes_of(self.memory) if self.memory else 0


def _bytes_of(text: str) -> int:
    """A size in bytes; 0 for what is none."""
    found = re.fullmatch(rf"([0-9]+(?:\.[0-9]+)?) ?({'|'.join(MEMORY_UNITS)})", text)
    return int(float(found[1]) * MEMORY_UNITS[found[2]]) if found else 0
