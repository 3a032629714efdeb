"""docs/training.md lists every training setting with its default."""

from __future__ import annotations

import json
import re
from pathlib import Path

from samtune.config.schema import TrainingConfig

PAGE = Path(__file__).parent.parent.parent / "docs" / "training.md"


def test_the_page_has_every_setting_and_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", PAGE.read_text(), re.MULTILINE)
    defaults = {
        name: "required" if info.is_required() else f"`{json.dumps(info.default).strip(chr(34))}`"
        for name, info in TrainingConfig.model_fields.items()
    }
    assert dict(rows) == defaults
