"""How `samtune models` and `samtune datasets` show a registry."""

from __future__ import annotations

from typing import Any

from samtune.cli.console import new_console, number, print_json, table
from samtune.registry import Entry, Registry


def show_registry(registry: Registry, name: str | None, as_json: bool) -> None:
    """All entries, or one with its parameters."""
    if as_json:
        entries = [registry[name]] if name else [registry[n] for n in registry]
        shown = [_json(entry) for entry in entries]
        print_json(shown[0] if name else shown)
        return
    console = new_console()
    if name is None:
        rows = table(registry.kind, "task", "")
        for key in registry:
            entry = registry[key]
            rows.add_row(key, entry.task or "", entry.summary)
        console.print(rows)
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
    example = "".join(f", {p.name}: {number(p.default)}" for p in entry.parameters[:2])
    console.print(f"\nin a study file:  {section}: {{name: {entry.name}{example}}}")


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
