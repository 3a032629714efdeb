"""Sessions of a study in a bucket, each on another machine, each killed but the last; without Ray.

A machine is a process of its own, forked from one that has imported what it takes and computed
nothing (autograd's threads do not survive a fork of this one); SIGKILL leaves nothing of it.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch

from samtune import s3 as client
from samtune import working_copy
from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.data import DataSplits, load_dataset
from samtune.study import StudyFolder, open_study
from samtune.study.storage import storage_path
from samtune.study.trial_run import run_trial
from samtune.tuning import trial as worker
from samtune.tuning.run import Silent
from samtune.tuning.search import Search
from samtune.tuning.trial import TrialActor
from tests.faults import saboteur  # noqa: F401 - registers the model
from tests.faults.oracle import Account, accounts, check_files
from tests.s3_server import S3, no_fault

CPU = torch.device("cpu")
Make = Callable[..., StudyConfig]


def _session(
    storage: str, config: StudyConfig, data: DataSplits, told: Callable[..., None]
) -> None:
    """What `samtune run`, or `resume`, and its workers do to the storage."""
    try:
        folder = StudyFolder.open(storage_path(storage), config.name)
    except Exception:  # noqa: BLE001 - not begun yet
        folder = StudyFolder.create(storage_path(storage), config)
    with folder.session() as session:
        search = Search(folder, config, session, Silent())
        while key := search.next_trial():
            if storage.startswith("s3://"):
                working_copy.new_copies()  # the worker is another process, with a copy of its own
            worker = StudyFolder(storage_path(storage) / config.name, folder.study_id)
            for p in run_trial(worker.trial(key), session, device=CPU, data=data):
                if p.outcome:
                    search.end(key, p.outcome, write=False)
                    break
                if not p.replayed:
                    told(f"{key} epoch {p.epoch}/")
                if not search.on_epoch(key, p.epoch, p.metrics, p.duration_s, p.replayed):
                    break
        search.finish()


def _machine(
    host: str,
    environment: dict[str, str],
    told: Connection,
    storage: str,
    config: StudyConfig,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    socket.gethostname = lambda: host
    _session(storage, config, load_dataset("digits"), told.send)


@dataclass
class Machines:
    storage: str
    config: StudyConfig
    printed: str = ""
    begun: int = 0

    def run(self, kill_after: float | None = None) -> int:
        """How a session on another machine ended: 0, or minus the signal that killed it.

        Args:
            kill_after: so many seconds after it has told its first epoch.
        """
        self.begun += 1
        context = get_context("forkserver")
        context.set_forkserver_preload([__name__])
        reader, writer = context.Pipe(duplex=False)
        machine = context.Process(
            target=_machine,
            args=(
                f"machine-{self.begun}",
                dict(os.environ),
                writer,
                self.storage,
                self.config,
            ),
        )
        machine.start()
        writer.close()
        with reader:
            if kill_after is not None and reader.poll(None):
                time.sleep(kill_after)
                machine.kill()
            try:
                while True:
                    self.printed += f"{reader.recv()}\n"
            except (EOFError, ConnectionResetError):
                machine.join()
        return machine.exitcode or 0


@pytest.fixture(params=[2, pytest.param(20, marks=pytest.mark.chaos)])
def kills(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def config(study_config: Make, kills: int) -> StudyConfig:
    return study_config(
        ("name: wide_resnet, depth: 10, width_factor: 1", "name: saboteur"),
        ("epochs: 3, batch_size: 400", "epochs: 5, batch_size: 1200"),
        (", label_noise: 0.4", ""),
        ("trials: 4", f"trials: {4 + kills}"),
    )


@pytest.fixture
def undisturbed(config: StudyConfig, tmp_path: Path) -> dict[str, Account]:
    """In a folder, with nothing in its way."""
    machines = Machines(str(tmp_path), config)
    assert machines.run() == 0
    found = accounts(open_study("tiny", tmp_path))
    assert {"finished", "stopped"} <= {account.state for account in found.values()}
    return found


def test_drivers_killed_one_after_another_on_other_machines_give_the_same_study(
    s3: S3,
    config: StudyConfig,
    undisturbed: dict[str, Account],
    monkeypatch: pytest.MonkeyPatch,
    kills: int,
) -> None:
    monkeypatch.setenv("SAMTUNE_LEASE_S", "2")
    machines = Machines(f"s3://{s3.new_bucket()}/studies", config)
    random, killed = np.random.default_rng(kills), 0
    while killed < kills:
        assert machines.run(float(random.uniform(0, 1))) == -signal.SIGKILL
        killed += 1
        check_files(machines.storage, "tiny", machines.printed)
    assert machines.run() == 0
    study = check_files(machines.storage, "tiny", machines.printed)
    assert accounts(study) == undisturbed
    assert study.left == 0
    assert study.session == machines.begun


def test_a_worker_finds_its_trial_by_the_address_and_leaves_its_log_there(
    s3: S3, study_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RETRY_EVERY_S", 0.0)
    monkeypatch.setattr(client, "TRIES", 1)
    config = study_config(
        ("name: wide_resnet, depth: 10, width_factor: 1", "name: saboteur"),
        ("epochs: 3, batch_size: 400", "epochs: 2, batch_size: 1200"),
    )
    storage = f"s3://{s3.new_bucket()}/studies"
    folder = StudyFolder.create(storage_path(storage), config)
    with folder.session() as session:
        folder.trial("t0001").hand_out(record_of(config, "t0001", {}), session)
        working_copy.new_copies()
        actor = TrialActor(
            {
                "study": working_copy.address(folder.root),
                "key": "t0001",
                "study_id": folder.study_id,
                "session": session,
                "cpus": 1,
                "gpus": 0,
                "plugins": [],
                "plugin_folder": str(Path.cwd()),
                "storage_wait": 600.0,
                "epoch_timeout": None,
            }
        )
        first = actor.step()
        s3.fault = lambda _: "busy"
        fault = actor.step()
        s3.fault = no_fault
        results = [actor.step()]
        while not results[-1]["done"]:
            results.append(actor.step())
        actor.cleanup()
    assert (first["epoch"], first["replayed"]) == (1, False)
    assert "SlowDown" in fault["fault"]
    assert not fault["done"]
    told = [(result["epoch"], result["replayed"]) for result in results]
    assert told == [(1, True), (2, False), (2, False)]
    assert results[-1]["outcome"]["state"] == "finished"
    study = open_study("tiny", storage)
    assert [trial.state for trial in study.trials] == ["finished"]
    assert f"{study.name}/trials/t0001/trial.log" in " ".join(s3.keys(storage.split("/")[2]))
