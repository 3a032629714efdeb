"""What another terminal asks reaches the session it was meant for, and no other."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.errors import SamtuneError, UnknownNameError
from samtune.study.folder import StudyFolder
from samtune.study.requests import ask_to_stop, heeded, requested, wait_until_stopped
from samtune.study.study import Study
from samtune.study.trial_folder import Outcome

Make = Callable[..., StudyConfig]
WAIT_S = 60.0


@pytest.fixture
def study_of(study_folder: StudyFolder, study_config: Make) -> Callable[[], Study]:
    """Reads a study of two trials, of which the first has ended."""
    for key in ("t0001", "t0002"):
        study_folder.trial(key).hand_out(record_of(study_config(), key, {}), 1)
    study_folder.trial("t0001").end(Outcome("stopped", 0))
    return lambda: Study(study_folder, study_config())


def test_who_is_not_running_is_not_asked(study_of: Callable[[], Study]) -> None:
    with pytest.raises(SamtuneError, match="study 'tiny' is not running .interrupted: 1 stopped"):
        ask_to_stop(study_of())


def test_a_trial_that_has_ended_is_not_asked(study_of: Callable[[], Study]) -> None:
    study = study_of()
    with study.folder.session():
        with pytest.raises(SamtuneError, match="trial t0001 has ended: stopped in epoch 0"):
            ask_to_stop(study_of(), "t0001")
        with pytest.raises(UnknownNameError):
            ask_to_stop(study_of(), "t0009")
        assert requested(study.folder, 1) == set()


def test_asked_twice_it_is_heeded_once_and_nothing_is_left(study_of: Callable[[], Study]) -> None:
    folder = study_of().folder
    told: list[set[str]] = []
    heard = threading.Event()

    def heed(asked: set[str]) -> None:
        told.append(asked)
        heard.set()

    with folder.session() as session:
        running = study_of()
        with heeded(folder, session, heed):
            ask_to_stop(running, "t0002")
            assert heard.wait(WAIT_S)
            heard.clear()
            ask_to_stop(running, "t0002")
            ask_to_stop(running)
            assert heard.wait(WAIT_S)
    assert told == [{"t0002"}, {"study"}]
    assert not (folder.root / "requests").exists()


def test_a_request_that_comes_too_late_stops_no_later_session(
    study_of: Callable[[], Study],
) -> None:
    folder = study_of().folder
    with folder.session():
        late = study_of()
    ask_to_stop(late)  # which had looked before the session ended
    assert requested(folder, 1) == {"study"}
    wait_until_stopped(late)
    with folder.session() as session:
        assert session == 2
        wait_until_stopped(late)  # another session is no reason to wait
        assert requested(folder, session) == set()
        with heeded(folder, session, lambda asked: pytest.fail(str(asked))):
            assert not (folder.root / "requests").exists()


def test_waiting_ends_with_the_trial(study_of: Callable[[], Study]) -> None:
    folder = study_of().folder
    with folder.session():
        folder.trial("t0002").end(Outcome("stopped", 0))
        wait_until_stopped(study_of(), "t0002")
