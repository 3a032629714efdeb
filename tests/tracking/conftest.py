"""Studies written by hand, and an MLflow that can be made to misbehave."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest

from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.study.folder import StudyFolder
from samtune.study.journal import Entry, Journal
from samtune.study.trial_folder import Outcome, TrialFolder

Make = Callable[..., StudyConfig]
T0 = 1_700_000_000_000


@pytest.fixture
def uri(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of one's own, which MLFLOW_TRACKING_URI names."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)  # artifacts go to ./mlruns
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def append(trial: TrialFolder, epoch: int, **metrics: float) -> None:
    """One more epoch: the first one ends at `T0 + 1000`, each lasts half a second."""
    values = {"val_accuracy": epoch / 10, "train_loss": 1.0, **metrics}
    Journal(trial.journal).append(Entry(1, 1, epoch, values, 0.5, T0 + 1000 * epoch, "s", "0"))


def write_study(folder: StudyFolder, trials: dict[str, int]) -> StudyFolder:
    """Hands out trials with that many epochs; those with three are finished."""
    config = folder.config()
    for key, epochs in trials.items():
        trial = folder.trial(key)
        trial.hand_out(record_of(config, key, {"sam.rho": 0.1}), 1)
        for epoch in range(1, epochs + 1):
            append(trial, epoch)
        if epochs == 3:
            trial.end(Outcome("finished", 3))
    return folder


@pytest.fixture
def folder(study_folder: StudyFolder) -> StudyFolder:
    """Two trials: a finished and an unfinished one; no weights, hence no champion."""
    return write_study(study_folder, {"t0001": 3, "t0002": 1})


@pytest.fixture
def remote(tmp_path: Path, study_config: Make) -> StudyFolder:
    """Four trials of three epochs, under a name that no other study on the server has."""
    name = f"s{uuid.uuid4().hex[:12]}"
    folder = StudyFolder.create(tmp_path, study_config(("name: tiny", f"name: {name}")))
    return write_study(folder, {f"t{number:04d}": 3 for number in range(1, 5)})


def runs_of(uri: str, name: str = "tiny") -> dict[str, mlflow.entities.Run]:
    """The runs of an experiment by trial, each trial's only one."""
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    by_trial = {run.data.tags["samtune.trial"]: run for run in runs}
    assert len(by_trial) == len(runs), "a trial has two runs"
    return by_trial


def points_of(uri: str, run: mlflow.entities.Run, name: str) -> list[tuple[int, float, int]]:
    """A metric's points: step, value and time, in order."""
    history = mlflow.MlflowClient(uri).get_metric_history(run.info.run_id, name)
    return sorted((p.step, p.value, p.timestamp) for p in history)


def assert_all_there(uri: str, folder: StudyFolder) -> None:
    """MLflow has what the journals have: each point once, each trial's parameters and state."""
    runs = runs_of(uri, folder.name)
    trials = folder.trials()
    assert set(runs) == {"study", *(trial.key for trial in trials)}
    for trial in trials:
        run = runs[trial.key]
        for name in ("val_accuracy", "train_loss"):
            expected = [
                (e.epoch, e.metrics[name], e.time_ms) for e in Journal(trial.journal).epochs()
            ]
            assert points_of(uri, run, name) == expected
        assert run.data.params["sam.rho"] == "0.1"
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == runs["study"].info.run_id
    assert mlflow.MlflowClient(uri).search_runs(["0"]) == []  # experiment Default


class Proxy:
    """A reverse proxy on 127.0.0.1 whose `rule` says what becomes of a request.

    `rule(method, path, body)` names it: `pass`; `drop`: it reaches MLflow, its reply is lost;
    `hang`: there never is one; `500`, `429`, `403`: that reply, from the proxy.
    """

    def __init__(self, target: str) -> None:
        self.rule: Callable[[str, str, bytes], str] = lambda *_: "pass"
        self.seen: list[tuple[str, str]] = []
        self._over = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                proxy.seen.append((self.command, self.path))
                fate = proxy.rule(self.command, self.path, body)
                if fate == "hang":
                    proxy._over.wait()
                if fate in ("pass", "drop"):
                    upstream = http.client.HTTPConnection(target)
                    headers = {k: v for k, v in self.headers.items() if k != "Host"}
                    upstream.request(self.command, self.path, body, headers)
                    reply = upstream.getresponse()
                    status, content = reply.status, reply.read()
                    upstream.close()
                else:
                    status, content = int(fate) if fate.isdigit() else 500, b"made up by a proxy"
                if fate in ("drop", "hang"):
                    self.close_connection = True
                    with contextlib.suppress(OSError):
                        self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Nobody listens from now on."""
        self._over.set()
        self._server.shutdown()
        self._server.server_close()


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path
) -> Iterator[tuple[str, int]]:
    """A real MLflow server: its host and port."""
    root = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, root / "mlflow.db")
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}", "--workers", "1"),
        *("--artifacts-destination", str(root / "artifacts")),
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # more processes, for nothing here
    with open(root / "server.log", "wb") as log:
        process = subprocess.Popen(
            command, cwd=root, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    break
            assert process.poll() is None, (root / "server.log").read_text()
            assert time.monotonic() < deadline, "the MLflow server does not start"
            time.sleep(0.2)
        yield "127.0.0.1", port
    finally:
        os.killpg(process.pid, 9)
        process.wait()


@pytest.fixture
def proxy(server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The real server behind a proxy, which MLFLOW_TRACKING_URI names."""
    proxy = Proxy(f"{server[0]}:{server[1]}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    yield proxy
    proxy.close()


@pytest.fixture
def direct(server: tuple[str, int]) -> str:
    """The real server's own address."""
    return f"http://{server[0]}:{server[1]}"
