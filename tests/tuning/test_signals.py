"""A first signal ends a session cleanly, and a second one at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from samtune.tuning.signals import HANDLED, Signals, handled_signals, time_budget
from tests.commands import as_from_a_terminal

SESSION = """
import sys, time
from types import SimpleNamespace
from samtune.tuning.signals import handled_signals

def acknowledge():
    print("stopping", flush=True)

with handled_signals() as signals:
    listener = SimpleNamespace(on_interrupt=acknowledge)
    signals.search = SimpleNamespace(listener=listener, stop=lambda: None)
    with signals.during_tune():
        print("tuning", flush=True)
        try:
            time.sleep(60)  # an epoch that takes its time; signals do not cut it short
        finally:
            print("farewell", flush=True)
"""


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(second: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SESSION],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=as_from_a_terminal,
    )
    assert process.stdout is not None
    for expected, number in (("tuning\n", signal.SIGINT), ("stopping\n", second)):
        assert process.stdout.readline() == expected
        assert process.poll() is None
        process.send_signal(number)
    rest, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + second
    assert "farewell" not in rest


def test_where_others_own_the_process_a_second_signal_ends_the_session_alone() -> None:
    session = SESSION.replace("handled_signals()", "handled_signals(owns_process=False)")
    process = subprocess.Popen(
        [sys.executable, "-c", f"{session}print('the kernel lives on')"],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=as_from_a_terminal,
    )
    assert process.stdout is not None
    for expected in ("tuning\n", "stopping\n"):
        assert process.stdout.readline() == expected
        time.sleep(0.2)  # the handler that has said so is still at work
        process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=20)
    assert rest.splitlines() == ["farewell", "the kernel lives on"]
    assert process.returncode == 0


@pytest.fixture
def own_handlers() -> Iterator[Callable[[], list[object]]]:
    """What handles each signal now; at first a function of ours, whoever has started the tests."""
    numbers = (*HANDLED, signal.SIGUSR1)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    yield lambda: [signal.getsignal(number) for number in numbers]
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_signals_are_left_as_they_were_found(
    own_handlers: Callable[[], list[object]],
) -> None:
    before = own_handlers()
    with handled_signals() as signals, signals.during_tune():
        assert all(now != then for now, then in zip(own_handlers(), before, strict=True))
    assert own_handlers() == before


def test_a_signal_that_nohup_has_switched_off_stays_so(
    own_handlers: Callable[[], list[object]],
) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with handled_signals() as signals, signals.during_tune():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_time_budget_stops_the_search_and_ends_with_its_body() -> None:
    signals, stopped = Signals(), threading.Event()
    signals.search = SimpleNamespace(stop=stopped.set)  # type: ignore[assignment]
    with time_budget(0.01, signals):
        assert stopped.wait(30)
    stopped.clear()
    with time_budget(0.05, signals), time_budget(None, signals):
        pass
    assert not stopped.wait(0.2)
