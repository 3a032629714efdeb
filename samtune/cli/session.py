"""A session on the screen: shown while it runs, and summed up once it has ended."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from samtune.errors import EndedEarlyError, NoUsableTrialError, SamtuneError
from samtune.study import Study, StudyFolder, open_study


class Detail(Enum):
    """How much of a session is shown.

    Attributes:
        BRIEF: a panel on a terminal; in a pipe a line for each event that matters.
        VERBOSE: a line for each epoch, too, on a terminal as well.
        QUIET: the summary alone.
        EVENTS: every event as a line of JSON, and nothing else.
    """

    BRIEF = "brief"
    VERBOSE = "--verbose"
    QUIET = "--quiet"
    EVENTS = "--json-events"

    @property
    def previews(self) -> bool:
        """Whether more than the end is said in words."""
        return self in (Detail.BRIEF, Detail.VERBOSE)


def time_left(seconds: float | None) -> Callable[[], float | None]:
    """Of so many seconds from now on, what is left whenever one asks; None is no limit."""
    end = None if seconds is None else time.monotonic() + seconds
    return lambda: None if end is None else max(1.0, end - time.monotonic())


def detail_of(*, verbose: bool, quiet: bool, json_events: bool) -> Detail:
    """What the flags ask for.

    Raises:
        SamtuneError: more than one of them was given.
    """
    given = [
        detail
        for detail, wanted in (
            (Detail.VERBOSE, verbose),
            (Detail.QUIET, quiet),
            (Detail.EVENTS, json_events),
        )
        if wanted
    ]
    if len(given) > 1:
        raise SamtuneError(f"{given[0].value} and {given[1].value} exclude each other: give one")
    return given[0] if given else Detail.BRIEF


def attend(
    start: Callable[[Any], Study],
    *,
    detail: Detail,
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
    from samtune.cli.console import new_console

    console = new_console(silent=detail is Detail.EVENTS)
    try:
        with _shown(console, detail, config, before, to_run) as listener:
            study = start(listener)
    except (EndedEarlyError, NoUsableTrialError):
        with contextlib.suppress(SamtuneError, OSError):  # a storage that fails cannot be read
            sum_up(detail, open_study(folder.name, folder.parent), folder)
        raise
    except BrokenPipeError:  # as in `samtune run FILE | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise EndedEarlyError(
            "nobody reads standard output any more, so the study was ended. All printed epochs are "
            f"safe. Go on with `{StudyFolder(folder.absolute()).command('resume')}`."
        ) from None
    if sums_up:
        sum_up(detail, study, folder)
    return study


@contextlib.contextmanager
def _shown(
    console: Any, detail: Detail, config: Any, before: Study | None, to_run: int
) -> Iterator[Any]:
    from samtune.cli.lines import Events, Lines, print_event
    from samtune.cli.panel import LivePanel, terminal_size
    from samtune.cli.progress import Progress

    if detail is Detail.QUIET:
        yield Progress(config, before, to_run)
    elif detail is Detail.EVENTS:
        print_event("session", study=config.name, trials=to_run)
        yield Events(config, before, to_run)
    elif detail is Detail.VERBOSE or terminal_size(console) is None:
        # A terminal of unknown size cannot be drawn on in place.
        yield Lines(config, before, to_run, verbose=detail is Detail.VERBOSE)
    else:
        panel = LivePanel(config, before, to_run, console)
        with panel.shown():
            yield panel


def sum_up(detail: Detail, study: Study, folder: Path) -> None:
    """What a session came to, and what MLflow has not taken of it."""
    from samtune.cli.console import new_console
    from samtune.cli.lines import print_event
    from samtune.cli.show import study_json
    from samtune.cli.summary import print_summary
    from samtune.cli.tracked import print_tracking

    console = new_console(silent=detail is Detail.EVENTS)
    if detail is Detail.EVENTS:
        print_event("study", **study_json(study))
    else:
        print_summary(console, study)
    print_tracking(console, folder)
