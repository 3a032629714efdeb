"""A study in a bucket is killed, and goes on in an empty folder of another machine."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from samtune.study import Study
from tests.faults.harness import STUDY, Workplace
from tests.faults.oracle import Account, accounts, check_ended, check_files, check_mlflow
from tests.s3_server import S3

# Whatever Python starts on such a machine takes it for one of this name.
HOST_NAME = """
import os, socket
socket.gethostname = lambda: os.environ["SAMTUNE_TESTED_ON"]
"""
LEASE_S = "4"


@dataclass
class Machines:
    """One machine after the other, each with an empty folder; what they share is the bucket."""

    folder: Path
    study: str
    patch: pytest.MonkeyPatch
    storage: str
    printed: str = ""
    begun: list[Workplace] = field(default_factory=list)

    def next(self) -> Workplace:
        number = len(self.begun)
        home = self.folder / f"machine-{number}"
        home.mkdir()
        (home / "sitecustomize.py").write_text(HOST_NAME)
        self.patch.setenv("PYTHONPATH", str(home), prepend=":")
        self.patch.setenv("SAMTUNE_TESTED_ON", f"machine-{number}")
        place = Workplace(home, self.study)
        place.mlflow = f"sqlite:///{self.folder / 'mlflow.db'}"
        self.begun.append(place)
        return place

    def begin_or_resume(self, place: Workplace) -> list[str]:
        if place is self.begun[0]:
            return ["run", "killed.yaml"]
        return ["resume", "killed", "--plugin", "slow_plugin"]

    def kill_on_the_next(self, random: np.random.Generator, most_epochs: int) -> bool:
        """Whether it was killed, and had not come to its end."""
        place = self.next()
        process = place.start(*self.begin_or_resume(place))
        epochs, delay = int(random.integers(1, most_epochs)), float(random.uniform(0, 0.4))
        killed = place.kill_after(process, epochs, signal.SIGKILL, delay)
        place.finish(process)
        self.printed += place.printed
        return killed

    def finish_on_the_next(self) -> Study:
        place = self.next()
        assert place.run(*self.begin_or_resume(place)) == 0, place.printed
        self.printed += place.printed
        place.run("sync", "killed", "--plugin", "slow_plugin")
        study = check_files(self.storage, "killed", self.printed)
        check_ended(study)
        check_mlflow(study, place.mlflow)
        return study

    def undisturbed(self) -> dict[str, Account]:
        """What the same study comes to in a folder, with nothing in its way."""
        self.patch.delenv("SAMTUNE_STORAGE")
        place = self.next()
        assert place.run("run", "killed.yaml") == 0, place.printed
        return accounts(check_files(place.storage, "killed", place.printed))


@pytest.fixture
def machines(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    storage = f"s3://{s3.new_bucket()}/studies"
    monkeypatch.setenv("SAMTUNE_STORAGE", storage)
    monkeypatch.setenv("SAMTUNE_LEASE_S", LEASE_S)
    return Machines(tmp_path, STUDY, monkeypatch, storage)


@pytest.mark.chaos
@pytest.mark.ray
def test_a_study_in_a_bucket_goes_on_in_an_empty_folder_of_another_machine(
    machines: Machines, s3: S3
) -> None:
    machines.study = STUDY.replace("trials: 7", "trials: 2")
    assert machines.kill_on_the_next(np.random.default_rng(0), most_epochs=3)
    study = machines.finish_on_the_next()
    assert study.session == 2
    assert not list(machines.begun[1].folder.glob("samtune_studies"))
    assert "waiting up to 4 s to see whether process" in machines.begun[1].printed


@pytest.mark.chaos
@pytest.mark.ray
def test_twenty_drivers_killed_at_random_one_after_another_give_the_same_study(
    machines: Machines,
) -> None:
    machines.study = STUDY.replace("trials: 7", "trials: 60")
    random = np.random.default_rng(20)
    kills = 0
    while kills < 20 and machines.kill_on_the_next(random, most_epochs=12):
        kills += 1
        check_files(machines.storage, "killed", machines.printed)
    study = machines.finish_on_the_next()
    assert kills == 20
    assert study.session == 21
    assert accounts(study) == machines.undisturbed()
