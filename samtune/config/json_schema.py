"""The JSON schema of study files, for editors that complete and check them.

It is made of what checks the files: the pydantic models, the registries and `torch.optim`, with the
lines of their docstrings. What one setting says of another stays with `samtune check`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind

from samtune.config.optimizers import optimizer_entry, optimizer_names
from samtune.config.resources import ResourcesConfig
from samtune.config.schema import SchedulerConfig, SearchConfig, StudyConfig
from samtune.config.trial import SamConfig, TrainingConfig, TrialConfig
from samtune.registry import DATASETS, MODELS, Entry, Registry, described

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
SECTIONS: tuple[type[BaseModel], ...] = (
    TrialConfig,
    SamConfig,
    TrainingConfig,
    SearchConfig,
    SchedulerConfig,
    ResourcesConfig,
)
FREE = {"type": "object", "required": ["name"]}


class _Generate(GenerateJsonSchema):
    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        """Nothing: a default that JSON cannot say is left out."""


def study_schema() -> Schema:
    """The schema of a study file, with all models and data sets that are registered now."""
    import samtune.data
    import samtune.models  # noqa: F401 - importing registers

    schema = StudyConfig.model_json_schema(schema_generator=_Generate)
    parts = schema["$defs"]
    for section in SECTIONS:
        _describe(parts[section.__name__], section)
    del schema["properties"]["confirm"]  # which nobody types
    trial = parts["TrialConfig"]["properties"]
    trial["model"] = _by_name(MODELS, (MODELS[name] for name in MODELS))
    trial["dataset"] = _by_name(DATASETS, (DATASETS[name] for name in DATASETS))
    trial["optimizer"] = _alternatives([(n, optimizer_entry(n)) for n in optimizer_names()], [])
    parts["SamConfig"]["properties"]["adaptive"] = {
        "type": "boolean",
        "description": "true is variant: asam",
    }
    search = parts["SearchConfig"]["properties"]
    search["scheduler"] = {
        "description": "what stops weak trials",
        "anyOf": [
            {"$ref": "#/$defs/SchedulerConfig"},
            parts["SchedulerConfig"]["properties"]["name"],
        ],
    }
    space = schema["properties"]["search_space"]
    many = space["additionalProperties"]
    space["additionalProperties"] = {"anyOf": [many["items"], many]}
    space["description"] = "a path into trial, and what its values are drawn from"
    used = {name: part for name, part in parts.items() if name not in ("ConfirmConfig", "Finalist")}
    return {"$schema": DIALECT, **schema, "title": "samtune study file", "$defs": used}


def _by_name(registry: Registry, entries: Iterable[Entry]) -> Schema:
    named = [(entry.name, entry) for entry in entries]
    return _alternatives(named, [f"^{prefix}/" for prefix in registry.families])


def _alternatives(named: list[tuple[str, Entry]], patterns: list[str]) -> Schema:
    """Something by name, with the parameters that are its own."""
    names: list[Schema] = [{"enum": [name for name, _ in named]}]
    names += [{"type": "string", "pattern": pattern} for pattern in patterns]
    return {
        **FREE,
        "properties": {"name": {"anyOf": names}},
        "allOf": [
            {
                "if": {"properties": {"name": {"const": name}}, "required": ["name"]},
                "then": _parameters(entry),
            }
            for name, entry in named
        ],
    }


def _parameters(entry: Entry) -> Schema:
    """What a factory takes."""
    schema = entry.schema.model_json_schema(schema_generator=_Generate)
    for parameter in entry.parameters:
        if parameter.description:
            schema["properties"][parameter.name]["description"] = parameter.description
    schema["properties"]["name"] = {"const": entry.name}
    return {**schema, "title": entry.name, "description": entry.summary}


def _describe(schema: Schema, section: type[BaseModel]) -> None:
    """Adds what the docstring says of each setting."""
    for name, text in described(inspect.getdoc(section) or "", "Attributes").items():
        if name in schema["properties"]:
            schema["properties"][name]["description"] = text
