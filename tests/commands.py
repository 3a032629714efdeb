"""The `samtune` command as tests give it: in this process, or in one of its own."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from samtune.cli import main


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


def samtune_here(*arguments: str, cwd: Path) -> Ended:
    """The command in this process, which has torch imported already, and Ray started perhaps."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["samtune", *arguments])
        try:
            main()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


def start_samtune(
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stderr: int | IO[str] = subprocess.STDOUT,
) -> subprocess.Popen[str]:
    """The command in a process of its own, its two outputs as one stream unless told otherwise."""
    return subprocess.Popen(
        [sys.executable, "-m", "samtune", *arguments],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        preexec_fn=as_from_a_terminal,
        cwd=cwd,
        env=env,
    )


def as_from_a_terminal() -> None:
    """In the background Ctrl-C is switched off, under nohup SIGHUP, and for children, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
