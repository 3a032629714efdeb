"""Each page's blocks, run in order in a folder of their own, as a reader would type them."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import Ended, samtune_here
from tests.docs.blocks import PAGES, ROOT, Block, blocks, words

# Commands that are not run, by their beginning, and why.
NOT_RUN = {
    "pip install": "installs, which `.ci/run` does",
    "python3 -m venv": "installs, which `.ci/run` does",
    ". .venv/bin/activate": "installs, which `.ci/run` does",
    "ruff": "is for this repository, and `.ci/run` does it",
    "mypy": "is for this repository, and `.ci/run` does it",
    "pytest": "is for this repository, and `.ci/run` does it",
    "mkdocs": "is for this repository, and test_site does it",
    "ray start": "begins a cluster; tests/tuning/test_cluster.py has one",
    "samtune run FILE --address auto": "needs a cluster; tests/tuning/test_cluster.py has one",
    "samtune run search_spaces/wrn_rho.yaml --storage s3:": "needs a bucket; tests/faults has one",
    "samtune list --storage s3:": "needs a bucket; tests/faults has one",
    "samtune report wrn_rho -o mine.html --open": "would open a browser",
    "samtune ui": "serves until it is ended; tests/tracking and tests/cli have it",
    "curl": "its dots stand for pixels; own_images.md asks with a whole image",
}
# What goes over a study that is long on its page, by the command's beginning.
TINY = {
    "samtune run search_spaces/wrn_rho.yaml": "study.trials=2 training.epochs=2 "
    "study.scheduler.grace_epochs=1 "
    "search_space.model.width_factor=null search_space.model.depth=null",
    "samtune run mine.yaml": "study.trials=2 training.epochs=1",
    "samtune run shapes.yaml": "study.trials=2 training.epochs=2",
    "samtune run stripes.yaml": "study.trials=2 training.epochs=1",
}
INSTEAD = {  # of words that a page only says for the reader's own
    "confirm shapes --top 1 --seeds 3": "confirm shapes --top 1 --seeds 1",
    "run shapes.yaml study.trials=8": "run shapes.yaml",
    " NAME": " wrn_rho",
    "--trials t0012 t0007": "--trials t0001 t0000",
}
RECIPES = "sam.md"  # which tests/sam/test_recipes.py runs, against SAM written out by hand
NEEDS_A_STUDY = ("README.md", "export.md", "report.md", "python.md", "sharpness.md")


@dataclass
class Reader:
    """Who types what a page says."""

    folder: Path
    port: int
    names: dict[str, Any] = field(default_factory=dict)
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def follow(self, block: Block) -> None:
        text = block.text.replace("5001", str(self.port))
        if block.title:
            (self.folder / block.title).write_text(text)
        elif block.kind == "python":
            with contextlib.chdir(self.folder):
                exec(compile(text, str(block), "exec"), self.names)
        elif block.kind == "shell":
            for command in block.commands:
                self.type(command.replace("5001", str(self.port)), str(block))

    def type(self, command: str, where: str) -> None:
        if any(command.startswith(known) for known in NOT_RUN):
            return
        tiny = next((more for begins, more in TINY.items() if command.startswith(begins)), "")
        for said, instead in INSTEAD.items():
            command = command.replace(said, instead)
        ended = self._ended(words(f"{command} {tiny}"))
        assert ended.returncode == 0, f"{where}: {command}\n{ended.stdout}{ended.stderr}"

    def _ended(self, typed: list[str]) -> Ended:
        program, *arguments = typed
        if program == "samtune":
            return samtune_here(*arguments, cwd=self.folder)
        if program == "mlflow":
            self._serve(arguments)
            return Ended(0, "", "")
        assert program == "python", f"give {shlex.join(typed)} a line in this file's tables"
        command = [sys.executable, *arguments]
        ran = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=300, check=False
        )
        self.names["printed"] = ran.stdout
        return Ended(ran.returncode, ran.stdout, ran.stderr)

    def _serve(self, arguments: list[str]) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        command = [sys.executable, "-m", "mlflow", *arguments]
        server = subprocess.Popen(
            command, cwd=self.folder, env={**os.environ, "PATH": path}, start_new_session=True
        )
        self.servers.append(server)
        until = time.monotonic() + 300
        while server.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=5)
                return
            time.sleep(0.5)
        raise AssertionError(f"{' '.join(command)} serves nothing")


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Reader(tmp_path, port)
    yield made
    for server in made.servers:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    """A folder with what pages that go on from the bundled study have: it, twice, and its model."""
    folder = tmp_path_factory.mktemp("studied")
    (folder / "search_spaces").symlink_to(ROOT / "search_spaces")
    run = "samtune run search_spaces/wrn_rho.yaml"
    typed = words(f"{run} {TINY[run]}")[1:]
    for extra in ([], ["--name", "wrn_rho_2"]):
        ended = samtune_here(*typed, *extra, cwd=folder)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != RECIPES], ids=lambda page: page.name
)
def test_what_a_page_says_works_in_the_order_it_says_it(
    page: Path, reader: Reader, request: pytest.FixtureRequest, local_ray: None
) -> None:
    if page.name in NEEDS_A_STUDY:
        studied = request.getfixturevalue("studied")
        shutil.copytree(studied, reader.folder, symlinks=True, dirs_exist_ok=True)
        _pictures(reader.folder)
    model = torch.nn.Linear(2, 2)
    reader.names |= {"torch": torch, "images": torch.rand(2, 1, 8, 8), "model": model}
    if page.name == "README.md":  # its first command would begin what the fixture has run
        shutil.rmtree(reader.folder / "samtune_studies" / "wrn_rho")
    for block in blocks(page):
        reader.follow(block)


def _pictures(folder: Path) -> None:
    from PIL import Image

    for name in ("cat.jpg", "dog.png"):
        Image.new("RGB", (20, 30), "grey").save(folder / name)
