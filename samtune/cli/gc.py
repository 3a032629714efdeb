"""`samtune gc`: removes what a study need not keep."""

from __future__ import annotations

from typing import Annotated

import typer

from samtune.cli.console import new_console
from samtune.cli.options import Storage, StudyName
from samtune.study import DEFAULT_STORAGE


def gc(
    name: StudyName,
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="Keep the weights of so many trials.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would go, and remove nothing.")] = False,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Remove training states of ended trials, and weights that are not among the best.

    How many trials keep their weights is `study.keep_weights`, unless --keep says otherwise.
    """
    from samtune.study import open_folder
    from samtune.study.keeping import collect
    from samtune.words import count, size, some

    found = collect(open_folder(storage, name), keep, remove=not dry_run)
    console = new_console()
    if not found:
        console.print(f"Study {name} holds nothing that it need not keep.", markup=False)
        return
    said = "would free" if dry_run else "freed"
    without = [spare.trial.key for spare in found if spare.why]
    states = sum(path.suffix == ".pt" for spare in found for path in spare.files)
    lines = [f"{name}: {said} {size(sum(spare.size for spare in found))}"]
    if states:
        lines.append(f"  {count(states, 'training state')}")
    if without:
        lines.append(f"  the weights of {count(len(without), 'trial')}: {some(without)}")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
