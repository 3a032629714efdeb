"""Which settings of the base trial a searched model or optimizer does not get."""

from __future__ import annotations

import json
from typing import Any

from samtune.config.optimizers import optimizer_entry
from samtune.config.schema import StudyConfig
from samtune.registry import MODELS


def left_behind(config: StudyConfig) -> list[str]:
    """A sentence for each model or optimizer that starts from its own defaults where others differ.

    A learning rate that is right for one optimizer is wrong for another, so the base trial's
    parameters go when another name is drawn. That is said where the other one has them too.
    """
    sentences = []
    for section in ("model", "optimizer"):
        base = config.trial.model if section == "model" else config.trial.optimizer
        for name in _others(config, f"{section}.name", base.name):
            entry = MODELS[name] if section == "model" else optimizer_entry(name)
            fields = entry.schema.model_fields
            lost = {
                key: (value, fields[key].default)
                for key, value in base.params.items()
                if key in fields
                and _plain(value) != _plain(fields[key].default)
                and not config.active(f"{section}.{key}", {f"{section}.name": name})
            }
            if lost:
                given = ", ".join(f"{key} {value}" for key, (value, _) in lost.items())
                own = ", ".join(f"{key} {default}" for key, (_, default) in lost.items())
                sentences.append(
                    f"{section} {name} trains with its own {own}: {given} under trial.{section} "
                    f"is {base.name}'s alone. Search {' and '.join(lost)} to set it, with 'when: "
                    f"{{{section}.name: {name}}}' where the values differ."
                )
    return sentences


def _others(config: StudyConfig, path: str, base: str) -> list[str]:
    searched = config.search_space.get(path, [])
    names = [str(name) for distribution in searched for name in distribution.examples]
    return [name for name in dict.fromkeys(names) if name.lower() != base.lower()]


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
