"""`samtune models` and `samtune datasets`: what is registered, with its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from samtune.cli.console import new_console, print_json, table
from samtune.cli.options import AsJson, Plugins
from samtune.registry import DATASETS, MODELS, Entry, Family, Registry, load_plugins
from samtune.words import number

Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show this one's parameters.")]


def models(name: Name = None, plugin: Plugins = None, as_json: AsJson = False) -> None:
    """List the models, or one model's parameters."""
    import samtune.models  # noqa: F401 - importing registers

    _show(MODELS, name, plugin, as_json)


def datasets(name: Name = None, plugin: Plugins = None, as_json: AsJson = False) -> None:
    """List the datasets, or one dataset's parameters."""
    import samtune.data  # noqa: F401 - importing registers

    _show(DATASETS, name, plugin, as_json)


def _show(registry: Registry, name: str | None, plugin: Plugins, as_json: bool) -> None:
    load_plugins(plugin or [], Path.cwd())
    if as_json:
        print_json(_shown_as_json(registry, name))
        return
    console = new_console()
    if name and name.rstrip("/") in registry.families:
        family = registry.families[name.rstrip("/")]
        console.print(f"{family.prefix}/<name> ({family.task}): {family.summary}\n")
        console.print(", ".join(family.names()))
        console.print(f"\nparameters:  samtune {registry.kind}s {family.prefix}/NAME")
        return
    if name is None:
        rows = table(registry.kind, "task", "")
        for key in registry:
            entry = registry[key]
            rows.add_row(key, entry.task or "", entry.summary)
        for family in registry.families.values():
            rows.add_row(f"{family.prefix}/<name>", family.task, family.summary)
        console.print(rows)
        for prefix in registry.families:
            console.print(f"\nnames:       samtune {registry.kind}s {prefix}", end="")
        console.print(f"\nparameters:  samtune {registry.kind}s NAME")
        return
    entry = registry[name]
    console.print(f"{entry.name} ({entry.task}): {entry.summary}\n")
    rows = table("parameter", "type", "default", "")
    for p in entry.parameters:
        default = "required" if p.required else number(p.default)
        rows.add_row(p.name, p.type, default, p.description)
    console.print(rows if entry.parameters else "It has no parameters.")
    section = registry.kind
    example = "".join(
        f", {p.name}: {'...' if p.required else number(p.default)}" for p in entry.parameters[:2]
    )
    console.print(f"\nin a study file:  {section}: {{name: {entry.name}{example}}}")


def _shown_as_json(registry: Registry, name: str | None) -> Any:
    if name is None:
        members = [_json(registry[n]) for n in registry]
        return members + [_family_json(f, ()) for f in registry.families.values()]
    if name.rstrip("/") in registry.families:
        family = registry.families[name.rstrip("/")]
        return _family_json(family, family.names())
    return _json(registry[name])


def _family_json(family: Family, names: Sequence[str]) -> dict[str, Any]:
    members = {"names": [f"{family.prefix}/{name}" for name in names]} if names else {}
    return {
        "name": f"{family.prefix}/<name>",
        "task": family.task,
        "summary": family.summary,
        **members,
    }


def _json(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "task": entry.task,
        "summary": entry.summary,
        "parameters": [
            {
                "name": p.name,
                "type": p.type,
                "default": p.default
                if isinstance(p.default, int | float | str | bool | list | None)
                else str(p.default),
                "required": p.required,
                "description": p.description,
            }
            for p in entry.parameters
        ],
    }
