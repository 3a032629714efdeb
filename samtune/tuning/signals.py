"""What ends a session from outside: signals, and a time budget."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from samtune.tuning.search import Search

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def time_budget(seconds: float | None, signals: Signals) -> Iterator[None]:
    """Ends the session as a signal would once the seconds are over; None is no limit."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, signals.stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Signals:
    """Ctrl-C, SIGTERM and SIGHUP end a session cleanly; a second one ends it at once."""

    def __init__(self) -> None:
        self.received = 0
        self.search: Search | None = None
        self._in_tune = False
        self._before: dict[int, Any] = {}

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Ends the session cleanly, and the process at once when asked again."""
        if self.received:
            os._exit(128 + signum)  # the journals are the truth, and they are on the disk
        self.received = signum
        if self.search:
            self.search.listener.on_interrupt()
        if self._in_tune:
            self.stop()
        else:
            raise KeyboardInterrupt

    def ask_to_end(self) -> None:
        """Ends the session as the first Ctrl-C does; `samtune stop` asks so in another thread."""
        if not self.received:
            self.received = signal.SIGINT
            if self.search:
                self.search.listener.on_interrupt()
            self.stop()

    def install(self) -> None:
        """Handles the signals here, but for those that `nohup` or a shell has switched off."""
        if threading.current_thread() is not threading.main_thread():
            return  # Python lets only the main thread handle signals
        for number in HANDLED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before.setdefault(number, signal.signal(number, self.handle))
        # Tune puts its own handler later; until then the signal must not end the process.
        nothing = signal.signal(signal.SIGUSR1, lambda *_: None)
        self._before.setdefault(signal.SIGUSR1, nothing)

    def restore(self) -> None:
        """Leaves the signals as they were found."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stop(self) -> None:
        """Ends the session: at once where Tune takes the signal, else after the current epochs."""
        if self.search:
            self.search.stop()
        if self._in_tune and self._before:
            os.kill(os.getpid(), signal.SIGUSR1)

    @contextmanager
    def during_tune(self) -> Iterator[None]:
        """Lets Tune end its trials itself while the body runs."""
        self.install()  # anew, since `ray.init` has put its own handler for SIGTERM
        self._in_tune = True
        try:
            yield
        finally:
            self._in_tune = False


@contextmanager
def handled_signals() -> Iterator[Signals]:
    """Handles signals while the body runs; what one of them interrupts ends quietly."""
    signals = Signals()
    signals.install()
    try:
        yield signals
    except KeyboardInterrupt:
        if not signals.received:
            raise
    finally:
        signals.restore()
