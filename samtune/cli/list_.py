"""`samtune list`: the studies there are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from samtune.cli.console import new_console, print_json, table, uncollected
from samtune.cli.options import AsJson, Storage
from samtune.errors import SamtuneError
from samtune.study import DEFAULT_STORAGE, open_study, study_names
from samtune.words import metric
from samtune.working_copy import address


@uncollected()
def list_(
    archived: Annotated[bool, typer.Option("--archived", help="List the archived ones.")] = False,
    storage: Storage = DEFAULT_STORAGE,
    as_json: AsJson = False,
) -> None:
    """List the studies in a storage folder, without those that were archived."""
    rows: list[dict[str, Any]] = []
    for name in study_names(storage):
        try:
            study = open_study(name, storage)
        except (SamtuneError, OSError) as error:
            rows.append({"name": name, "state": "damaged", "error": " ".join(str(error).split())})
            continue
        if study.is_archived != archived:
            continue
        best = study.best
        rows.append(
            {
                "name": name,
                "state": study.state,
                "trials": study.counts(),
                "damage": [str(damage) for damage in study.damage],
                "metric": study.metric,
                "best_trial": best.key if best else None,
                "best_score": best.value if best else None,
            }
        )
    if as_json:
        print_json(rows)
        return
    console = new_console()
    if not rows:
        kind, where = "archived study" if archived else "study", address(storage)
        console.print(f"There is no {kind} in {where}. Start one with `samtune run FILE`.")
        return
    shown = table("study", "state", "trials", "metric", ">best", "trial")
    for row in rows:
        if "error" in row:
            shown.add_row(row["name"], row["state"], row["error"])
            continue
        counts = ", ".join(f"{n} {state}" for state, n in row["trials"].items())
        value = metric(row["best_score"])
        shown.add_row(row["name"], row["state"], counts, row["metric"], value, row["best_trial"])
    console.print(shown)
    for row in rows:
        for damage in row.get("damage", []):
            line = f"{row['name']} is damaged: {damage}"
            console.print(line, style="yellow", markup=False, soft_wrap=True)
