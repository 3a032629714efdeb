"""What every part of a configuration is: strict and frozen."""

from __future__ import annotations

from pydantic import (
    BaseModel,
    ConfigDict,
)

Value = float | int | str | bool | None
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # of studies and what else is a name in one


class Config(BaseModel):
    """Strict and frozen: unknown keys are refused, numbers are finite."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True
    )
