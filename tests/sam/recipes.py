"""The recipes of docs/sam.md, cut out and run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

PAGE = (Path(__file__).parents[2] / "docs" / "sam.md").read_text()
[SECTION] = re.findall(r"^## SAM on its own\n(.*?)^## ", PAGE, re.DOTALL | re.MULTILINE)
BLOCKS = re.findall(r"^(?:### (.*?)\n.*?)?^```python\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE)
RECIPES: dict[str, str] = dict(BLOCKS)  # the first, which has no title, makes the optimizer


def run_recipe(
    title: str,
    model: nn.Module,
    batches: Sequence[Any],
    loss: Callable[..., Any] = nn.functional.cross_entropy,
) -> dict[str, Any]:
    """The names that the recipe leaves behind, after it has trained the model."""
    names = {"torch": torch, "model": model, "batches": batches, "device": "cpu"}
    names["cross_entropy"] = loss
    before_the_loop = RECIPES[""].split("for ")[0]
    exec(RECIPES[title] if not title else before_the_loop + RECIPES[title], names)
    return names
