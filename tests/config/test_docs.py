"""docs/training.md and docs/study.md list every setting of their section with its default."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from samtune.config.schema import SearchConfig
from samtune.config.trial import TrainingConfig

DOCS = Path(__file__).parent.parent.parent / "docs"


def _as_in_a_file(default: object) -> str:
    plain = default.model_dump() if isinstance(default, BaseModel) else default
    return json.dumps(plain).replace('"', "")


@pytest.mark.parametrize(
    ("page", "section"), [("training.md", TrainingConfig), ("study.md", SearchConfig)]
)
def test_the_page_has_every_setting_and_its_default(page: str, section: type[BaseModel]) -> None:
    text = (DOCS / page).read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", text, re.MULTILINE)
    defaults = {
        name: "required" if info.is_required() else f"`{_as_in_a_file(info.default)}`"
        for name, info in section.model_fields.items()
    }
    assert dict(rows) == defaults
