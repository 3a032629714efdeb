"""The study's page, made beside the last of the shipping, once the study has ended."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from types import TracebackType

from samtune.errors import SamtuneError
from samtune.study.folder import StudyFolder
from samtune.study.manifest import CONFIRM_FILE
from samtune.study.study import Study
from samtune.working_copy import address


class Page:
    """Has the page made that `study.report` asks for; leaving the context ends what is at work.

    By a process of its own: the plots' libraries have no place in this one's memory, and what makes
    pages stands above what ships them. It finds the study by its address, since it has no part in
    this process's copy of a bucket.

    Args:
        log: takes what only those who look for a fault want to read.
    """

    def __init__(self, folder: StudyFolder, log: Callable[[str], None]) -> None:
        self._folder = folder
        self._log = log
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed on leaving the context
        self._process: subprocess.Popen[bytes] | None = None
        self._is_begun = False
        self.is_lost = False

    def __enter__(self) -> Page:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def begin(self) -> None:
        """Starts once, if the study is at its end and wants a page."""
        if self._is_begun:
            return
        self._is_begun = True
        command = [sys.executable, "-m", "samtune.report", address(self._folder.root)]
        try:
            if self._is_wanted():
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said
                )
        except (SamtuneError, OSError) as fault:
            self._lose(str(fault))

    def is_made(self, timeout_s: float) -> bool:
        """Whether there is a new one, which is waited for."""
        if self._process is None:
            return False
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as fault:
            self._lose(str(fault))
            return False
        if code:
            self._said.seek(0)
            self._lose(f"exit code {code}\n{self._said.read().decode(errors='replace')}")
        return not code

    def _is_wanted(self) -> bool:
        study = Study(self._folder, self._folder.config())
        is_concluded = not study.config.confirm or (self._folder.root / CONFIRM_FILE).exists()
        return study.config.study.report and not study.left and is_concluded

    def _lose(self, why: str) -> None:
        self.is_lost = True
        self._log(f"the page could not be made: {why}")
