"""The second half of a study with a tuned baseline, on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samtune.cli.session import Detail, attend, sum_up
from samtune.study import Study, open_study
from samtune.words import count

if TYPE_CHECKING:
    from samtune.tuning.baseline import Tuning
    from samtune.tuning.run import Session


def tune_and_sum_up(
    name: str,
    *,
    storage: Path,
    detail: Detail,
    console: Any,
    session: Session,
    plugins: Sequence[str] = (),
) -> None:
    """Runs what is left of the tuned baseline of a search that is done, then sums both up.

    Args:
        session: how to run it; its plugins are imported by now.
    """
    from samtune import tracking
    from samtune.cli.tracked import print_tracking
    from samtune.tuning.baseline import tune_baseline, tuning_of

    search = open_study(name, storage)
    tuning = tuning_of(search)
    assert tuning is not None
    to_run = tuning.to_run(retry_failed=session.retry_failed)
    if to_run:
        _print_plan(console, search, tuning, to_run)
        attend(
            lambda listener: tune_baseline(
                tuning, storage, replace(session, listener=listener), plugins
            ),
            detail=detail,
            config=tuning.config,
            before=tuning.before,
            to_run=to_run,
            folder=storage / tuning.config.name,
            sums_up=False,
        )
        print_tracking(console, storage / tuning.config.name)
    with tracking.following(search.folder.root, search.config.plugins, session.plugin_folder):
        pass  # MLflow has the search already; now it is told what its baseline came to
    sum_up(detail, open_study(name, storage), storage / name)


def _print_plan(console: Any, search: Study, tuning: Tuning, to_run: int) -> None:
    config = tuning.config
    console.print(
        f"\n[bold]study {config.name}[/]: {config.trial.optimizer.name} alone, "
        f"{', '.join(config.search_space)} tuned as in {search.name}: "
        f"{count(to_run, 'trial')} to run",
        soft_wrap=True,
    )
