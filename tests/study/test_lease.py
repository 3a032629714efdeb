"""Who may run a study in a bucket: one driver, and another once that one is surely gone."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from samtune import working_copy
from samtune.config.schema import StudyConfig
from samtune.errors import FencedError, SamtuneError
from samtune.study.folder import StudyFolder
from samtune.study.lease import Lease
from samtune.study.storage import storage_path
from tests.s3_server import S3

LEASE_S = 2.0


class Machines:
    """One process that plays machines of different names, each with its own copies."""

    def __init__(self, storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.storage = storage
        self._patch = monkeypatch

    def go_to(self, host: str) -> Path:
        self._patch.setattr(socket, "gethostname", lambda: host)
        working_copy.new_copies()
        return storage_path(self.storage)

    def open(self, host: str) -> StudyFolder:
        return StudyFolder.open(self.go_to(host), "tiny")


@pytest.fixture
def machines(
    s3: S3, study_config: Callable[..., StudyConfig], monkeypatch: pytest.MonkeyPatch
) -> Machines:
    """With a study that was created on one of them."""
    monkeypatch.setenv("SAMTUNE_LEASE_S", str(LEASE_S))
    found = Machines(f"s3://{s3.new_bucket()}/studies", monkeypatch)
    StudyFolder.create(found.go_to("one"), study_config())
    return found


def _is_killed(lease: Lease) -> None:
    """Nothing of its holder runs any more."""
    lease._ended.set()
    assert lease._renewing is not None
    lease._renewing.join()


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> list[Lease]:
    """Every lease that is taken, in order."""
    taken: list[Lease] = []
    take = Lease.acquire

    def acquire(self: Lease) -> None:
        take(self)
        taken.append(self)

    monkeypatch.setattr(Lease, "acquire", acquire)
    return taken


def test_a_driver_that_lives_keeps_its_study_for_longer_than_a_lease(machines: Machines) -> None:
    with machines.open("one").session() as number:
        other = machines.open("two")
        assert other.is_running
        time.sleep(1.5 * LEASE_S)
        with (
            pytest.raises(SamtuneError, match="is being run by process .* on one"),
            other.session(),
        ):
            pass
        assert number == 1
    with machines.open("two").session() as number:
        assert number == 2


def test_a_study_whose_driver_is_gone_is_taken_over_once_its_lease_has_run_out(
    machines: Machines, leases: list[Lease], capsys: pytest.CaptureFixture[str]
) -> None:
    first = machines.open("one")
    with first.session() as old:
        _is_killed(leases[0])
        started = time.monotonic()
        second = machines.open("two")
        with second.session() as new:
            assert LEASE_S <= time.monotonic() - started < 20
            assert (old, new) == (1, 2)
            assert "waiting up to 2 s" in capsys.readouterr().err
            assert second.driver
            assert second.driver.host == "two"
            with pytest.raises(FencedError, match="has taken over"):
                first.check_session(old)  # it was only held up
    assert second.manifest.driver is None  # the first one's end changes nothing
    assert second.manifest.session == 2


def test_one_that_is_lost_to_another_is_not_renewed_any_more(
    machines: Machines, leases: list[Lease]
) -> None:
    with machines.open("one").session():
        second = machines.open("two")
        with second.session(force_unlock=True):
            time.sleep(LEASE_S)
            assert leases[0]._mine is None
            assert leases[1]._mine is not None
            assert leases[1]._mine.renewals >= 1


def test_of_two_that_take_over_at_the_same_time_one_comes_first(
    machines: Machines, leases: list[Lease], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = machines.open("one")
    session = first.session()
    session.__enter__()
    _is_killed(leases[0])
    taken: list[int] = []
    refused: list[SamtuneError] = []
    both_in = threading.Barrier(2)
    folders = [machines.open("two"), machines.open("three")]

    def take(folder: StudyFolder) -> None:
        both_in.wait()
        try:
            with folder.session() as number:
                taken.append(number)
                time.sleep(3 * LEASE_S)
        except SamtuneError as error:
            refused.append(error)

    threads = [threading.Thread(target=take, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == [2]
    assert len(refused) == 1


def test_a_lease_that_has_run_out_by_the_stores_clock_is_not_shown_as_running(
    machines: Machines, leases: list[Lease]
) -> None:
    session = machines.open("one").session()
    session.__enter__()
    other = machines.open("two")
    assert other.is_running
    _is_killed(leases[0])
    time.sleep(LEASE_S + 1.1)  # the store's clock goes in whole seconds
    assert not other.is_running


def test_a_store_that_knows_no_conditions_is_refused(machines: Machines, s3: S3) -> None:
    folder = machines.open("one")
    s3.knows_conditions = False
    with pytest.raises(SamtuneError, match="no conditional writes"), folder.session():
        pass
