"""A session on the screen: shown while it runs, and summed up once it has ended."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from samtune.errors import EndedEarlyError, NoUsableTrialError, SamtuneError
from samtune.study import Study, StudyFolder, open_study


def attend(
    console: Any,
    start: Callable[[Any], Study],
    *,
    config: Any,
    before: Study | None,
    to_run: int,
    folder: Path,
    sums_up: bool = True,
) -> Study:
    """Shows a session while it runs, then its summary; `run` and `resume` end alike.

    Args:
        sums_up: False leaves the summary to the caller, but for a session that ends too early.
    """
    from samtune.cli.display import Display
    from samtune.cli.summary import print_summary
    from samtune.cli.tracked import print_tracking

    try:
        with Display(config, console, before, to_run).shown() as display:
            study = start(display)
    except (EndedEarlyError, NoUsableTrialError):
        with contextlib.suppress(SamtuneError, OSError):  # a storage that fails cannot be read
            print_summary(console, open_study(folder.name, folder.parent))
            print_tracking(console, folder)
        raise
    except BrokenPipeError:  # as in `samtune run FILE | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise EndedEarlyError(
            "nobody reads standard output any more, so the study was ended. All printed epochs are "
            f"safe. Go on with `{StudyFolder(folder.absolute()).command('resume')}`."
        ) from None
    if sums_up:
        print_summary(console, study)
        print_tracking(console, folder)
    return study
