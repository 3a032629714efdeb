"""What other terminals ask of the driver of a study.

A request is an empty file in the study's folder, whose name says of which session what is asked:
`requests/3-study`, `requests/3-t0007`. The driver looks for those of its own session, wherever it
runs; one that came too late says nothing to the next session, which removes it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from samtune import working_copy
from samtune.errors import SamtuneError
from samtune.files import remove
from samtune.study.fetching import fetch_own
from samtune.study.folder import StudyFolder
from samtune.study.study import Study
from samtune.working_copy import is_copy, publish

REQUESTS = "requests"
WHOLE_STUDY = "study"
POLL_S = 0.5
POLL_BUCKET_S = 10.0  # each look at one is paid for


def ask_to_stop(study: Study, key: str | None = None) -> None:
    """Asks the driver to end its session, or one trial, after the current epochs.

    Asking twice asks no more than once.

    Raises:
        SamtuneError: no driver is at work, or the trial has ended.
    """
    if not study.is_running:
        raise SamtuneError(f"study {study.name!r} is not running ({study.state}: {study.tally})")
    if key is not None and (outcome := study.trial(key).outcome):
        raise SamtuneError(f"trial {key} has ended: {outcome.state} in epoch {outcome.epoch}")
    folder = study.folder.root / REQUESTS
    with contextlib.suppress(FileNotFoundError):  # the driver is just removing it, being done
        folder.mkdir(exist_ok=True)
        asked = folder / f"{study.session}-{key or WHOLE_STUDY}"
        asked.touch()
        publish(asked)


def wait_until_stopped(study: Study, key: str | None = None) -> None:
    """Returns once the session that the study was in has ended, or this trial has."""
    folder = study.folder
    while True:
        fetch_own(folder.root)
        if key is not None:
            folder.trial(key).fetch()
        manifest = folder.manifest
        if manifest.session != study.session or not folder.is_running:
            return
        if key is not None and folder.trial(key).outcome():
            return
        time.sleep(_poll_s(folder))


def requested(folder: StudyFolder, session: int) -> set[str]:
    """What is asked of this session: trials by their keys, or `WHOLE_STUDY`."""
    try:
        names = _asked(folder)
    except OSError:
        return set()
    return {name.partition("-")[2] for name in names if name.startswith(f"{session}-")}


@contextlib.contextmanager
def heeded(folder: StudyFolder, session: int, heed: Callable[[set[str]], None]) -> Iterator[None]:
    """While the body runs, what is asked of this session is told to `heed`, in another thread."""
    remove_requests(folder)
    ended = threading.Event()

    def look() -> None:
        known: set[str] = set()
        while not ended.wait(_poll_s(folder)):
            if new := requested(folder, session) - known:
                known |= new
                heed(new)

    thread = threading.Thread(target=look, name="samtune-requests", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        remove_requests(folder)


def remove_requests(folder: StudyFolder) -> None:
    """Removes what was asked of this session and of earlier ones."""
    with contextlib.suppress(OSError):
        for name in _asked(folder):
            remove(folder.root / REQUESTS / name)
        (folder.root / REQUESTS).rmdir()


def _asked(folder: StudyFolder) -> set[str]:
    """The names of all requests there are."""
    requests = folder.root / REQUESTS
    if is_copy(requests):
        working_copy.fetch(requests, lambda _: False)
        return working_copy.names(requests)
    return {path.name for path in requests.iterdir()}


def _poll_s(folder: StudyFolder) -> float:
    return POLL_BUCKET_S if is_copy(folder.root) else POLL_S
