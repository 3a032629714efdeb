"""Writes `docs/study_file.md` from the schema of study files: `python docs/tools/study_file.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from samtune.config.resources import ResourcesConfig
from samtune.config.schema import SchedulerConfig, SearchConfig
from samtune.config.trial import SamConfig, TrainingConfig

PAGE = Path(__file__).parents[1] / "study_file.md"
HEAD = """\
# The study file in full

Every key that a study file may have, with its type, its default and what it does; made from the schema
that files are checked by. `samtune check FILE` names whatever does not fit, with its line.

```yaml
name: small                             # of the study: its folder, its runs in MLflow
plugins: []                             # your own modules, which register models and data sets
trial:                                  # one complete run; `samtune train` runs just this
  model: {name: wide_resnet, depth: 10, width_factor: 1}
  dataset: {name: digits}
  optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
  sam: {rho: 0.05}
  training: {epochs: 15}
search_space:                           # a path into `trial` -> what to draw it from
  sam.rho: {float: [0.01, 1.0], log: true}
  sam.variant: {choice: [sam, asam]}
  optimizer.lr:
    - {float: [0.03, 0.3], log: true, when: {sam.variant: sam}}
    - {float: [0.01, 0.1], log: true, when: {sam.variant: asam}}
  model.depth: {int: [10, 22], step: 6}
study: {trials: 24}
```

Required are `name` (1 to 64 letters, digits, dots, dashes or underscores) and `trial` with all but `sam`.
`model`, `dataset` and `optimizer` take a `name`, and beside it what `samtune models NAME`, `samtune datasets NAME` and
torch's own optimizer list. Relative paths start from the file's folder. A secret is written `${NAME}` and taken from
the environment. On the command line `KEY=VALUE` goes over the file; `training.epochs` is short for
`trial.training.epochs`.

| in `search_space` | draws | |
|---|---|---|
| `{float: [low, high]}` | a number | `log: true` on the log scale, or `step: s` |
| `{int: [low, high]}` | a whole number, both ends included | `log: true`, or `step: s` |
| `{choice: [a, b]}` | one of these | |
| a list of them | by the first whose `when: {path: value}` holds | a value may be a list of values |
"""
SECTIONS: dict[str, tuple[type[BaseModel], str]] = {
    "trial: sam:": (SamConfig, "[What the variants are, and what they cost](sam.md)."),
    "trial: training:": (TrainingConfig, "[More on each, with sources](training.md)."),
    "study:": (SearchConfig, "[More on each](study.md)."),
    "study: scheduler:": (SchedulerConfig, "[How schedulers compare](search.md)."),
    "study: resources:": (ResourcesConfig, ""),
}
WORDS = {"integer": "whole number", "number": "number", "boolean": "true or false"}
BOUNDS = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "to",
    "exclusiveMaximum": "below",
}


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_section(*item) for item in SECTIONS.items())


def _section(title: str, what: tuple[type[BaseModel], str]) -> str:
    config, more = what
    text, described = _docstring(config)
    schema = config.model_json_schema()
    rows = "".join(
        f"| `{name}` | {_type(schema['properties'][name], schema)} | {_default(info)} "
        f"| {described.get(name, '').replace('|', chr(92) + '|')} |\n"
        for name, info in config.model_fields.items()
    )
    head = "| key | type | default | |\n|---|---|---|---|\n"
    return f"\n## `{title}`\n\n{' '.join(f'{text} {more}'.split())}\n\n{head}{rows}"


def _docstring(config: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """A class's description, and that of each of its attributes."""
    text, _, attributes = (config.__doc__ or "").partition("Attributes:")
    described: dict[str, str] = {}
    names: list[str] = []
    for line in attributes.splitlines():
        if found := re.match(r"        (\w[\w, ]*): (.*)", line):
            names = found[1].split(", ")
            described |= dict.fromkeys(names, found[2])
        elif line.strip():
            described |= {name: f"{described[name]} {line.strip()}" for name in names}
    return text, described


def _type(schema: dict[str, Any], whole: dict[str, Any]) -> str:
    return " or ".join(dict.fromkeys(_types(schema, whole)))


def _types(schema: dict[str, Any], whole: dict[str, Any]) -> Iterator[str]:
    if "anyOf" in schema:
        for part in schema["anyOf"]:
            yield from _types(part, whole)
    elif "$ref" in schema:
        yield "mapping, see below"
    elif "enum" in schema or "const" in schema:
        yield ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    elif schema["type"] == "array":
        yield f"list of {_type(schema['items'], whole)}"
    else:
        limits = [f"{word} {_number(schema[key])}" for key, word in BOUNDS.items() if key in schema]
        names = {"string": "text", "null": "`null`", "object": "mapping", **WORDS}
        yield " ".join([names[schema["type"]], *limits])


def _number(limit: float) -> str:
    power = limit.bit_length() - 1 if isinstance(limit, int) else 0
    return f"2^{power}" if power > 10 and limit == 2**power else f"{limit:,g}"


def _default(info: Any) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    plain = value.model_dump() if isinstance(value, BaseModel) else value
    return "`" + json.dumps(plain).replace('"', "") + "`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
