"""The distributions that settings are drawn from: ranges of numbers, and choices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from samtune.config.base import Config
from samtune.registry import Number

MOST_STEPS = 10_000


class _Distribution(Config):
    when: dict[str, Any] | None = None

    @property
    def is_endless(self) -> bool:
        """Whether there are more values than can be counted out."""
        return False

    @field_validator("when")
    @classmethod
    def _must_be_values(cls, when: dict[str, Any] | None) -> dict[str, Any] | None:
        for path, allowed in (when or {}).items():
            values = allowed if isinstance(allowed, list) else [allowed]
            if not values or not all(_is_value(value) for value in values):
                raise ValueError(f"{path} must be a value or a list of values, got {allowed!r}")
        return when

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether the values drawn so far (or the base trial's) meet the condition."""
        return all(
            values.get(path) in (allowed if isinstance(allowed, list) else [allowed])
            for path, allowed in (self.when or {}).items()
        )


class _Range(_Distribution):
    @model_validator(mode="after")
    def _must_be_a_range(self) -> _Range:
        low, high = self.bounds
        if low >= high:
            raise ValueError(f"the lower end must be below the upper, got [{low}, {high}]")
        if self.log and low <= 0:
            raise ValueError(f"a log scale needs a lower end above 0, got {low}")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other; leave one out")
        if self.step is not None:
            steps = (high - low) / self.step
            if steps > 2**53:
                raise ValueError(f"from {low} to {high} there are too many steps of {self.step}")
            if not math.isclose(steps, round(steps), rel_tol=1e-9):
                nearest = low + math.floor(steps) * self.step
                raise ValueError(
                    f"steps of {self.step} from {low} do not meet {high}; end at {nearest:.12g} or "
                    f"{nearest + self.step:.12g}"
                )
        return self

    def contains(self, value: Any) -> bool:
        """Whether a value could be drawn from here."""
        low, high = self.bounds
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        steps = (value - low) / self.step if self.step else 0
        return bool(low <= value <= high and math.isclose(steps, round(steps), abs_tol=1e-8))

    bounds: tuple[Any, Any]
    step: Any
    log: bool


class FloatRange(_Range):
    """A real number between two ends, both included."""

    bounds: tuple[Number, Number] = Field(alias="float")
    step: float | None = Field(None, gt=0, strict=True)
    log: bool = Field(False, strict=True)

    @property
    def is_endless(self) -> bool:
        """Whether it has no steps, or more than can be counted out."""
        low, high = self.bounds
        return self.step is None or bool((high - low) / self.step > MOST_STEPS)

    @property
    def examples(self) -> Sequence[float]:
        """Both ends, or every value of a range in steps, where they can be counted out."""
        low, high = self.bounds
        if self.step is None or self.is_endless:
            return [low, high]
        steps = round((high - low) / self.step)
        return [min(low + i * self.step, high) for i in range(steps + 1)]


class IntRange(_Range):
    """An integer between two ends, both included."""

    bounds: tuple[Annotated[int, Field(strict=True)], Annotated[int, Field(strict=True)]] = Field(
        alias="int"
    )
    step: Annotated[int, Field(gt=0, strict=True)] | None = None
    log: bool = Field(False, strict=True)

    @property
    def examples(self) -> Sequence[int]:
        """Every value."""
        low, high = self.bounds
        return range(low, high + 1, self.step or 1)


class Choice(_Distribution):
    """One of the listed values; each a number, a text, a truth value, null, or a list of those."""

    choice: list[Any] = Field(min_length=1)

    @field_validator("choice")
    @classmethod
    def _must_differ(cls, choice: list[Any]) -> list[Any]:
        seen: set[str] = set()
        for value in choice:
            if repr(value) in seen:
                raise ValueError(f"{value!r} is listed twice; leave one out")
            seen.add(repr(value))
        for value in choice:
            if not all(_is_value(part) for part in (value if isinstance(value, list) else [value])):
                raise ValueError(f"{value!r} is no number, text, truth value or list of those")
        return choice

    def contains(self, value: Any) -> bool:
        """Whether a value could be drawn from here."""
        return value in self.choice

    @property
    def examples(self) -> Sequence[Any]:
        """Every value."""
        return self.choice


def _is_value(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, int | str)


Distribution = FloatRange | IntRange | Choice
DISTRIBUTIONS: dict[str, type[FloatRange] | type[IntRange] | type[Choice]] = {
    "float": FloatRange,
    "int": IntRange,
    "choice": Choice,
}


def in_words(distribution: object) -> str:
    """A distribution as one reads it."""
    match distribution:
        case FloatRange(bounds=(low, high), step=step, log=log):
            text = f"{low:g} to {high:g}"
        case IntRange(bounds=(low, high), step=step, log=log):
            text = f"{low} to {high}"
        case _:
            choices = getattr(distribution, "choice", [])
            step, log, text = None, False, ", ".join(str(c) for c in choices)
    text += ", log scale" if log else ""
    text += f", in steps of {step:g}" if step else ""
    when = getattr(distribution, "when", None)
    if when:
        text += " when " + " and ".join(f"{path} is {value}" for path, value in when.items())
    return text
