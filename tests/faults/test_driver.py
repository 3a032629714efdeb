"""The driver is killed, and resumed, and nobody can tell afterwards (F13, F16, F18)."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from samtune.study import open_study
from samtune.study.keeping import spares
from tests.faults.harness import STUDY, Workplace, kill_until_done
from tests.faults.oracle import (
    Account,
    accounts,
    check_ended,
    check_files,
    check_mlflow,
)

RESUME = ("resume", "killed", "--plugin", "slow_plugin")
SOAK_S = float(os.environ.get("SAMTUNE_SOAK_S", "60"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Account]:
    """The same study with nothing in its way."""
    place = Workplace(tmp_path_factory.mktemp("undisturbed"))
    assert place.run("run", "killed.yaml") == 0, place.printed
    study = check_files(place.storage, "killed", place.printed)
    check_ended(study)
    check_mlflow(study, place.mlflow)
    place.check_nothing_left(killed=False)
    assert not list(spares(study))
    states = [t.state for t in study.trials]
    assert {"finished", "stopped"} <= set(states)
    return accounts(study)


@pytest.mark.chaos
@pytest.mark.ray
@pytest.mark.parametrize("seed", range(20))
def test_a_driver_killed_at_random_and_resumed_gives_the_same_study(
    tmp_path: Path, undisturbed: dict[str, Account], seed: int
) -> None:
    place = Workplace(tmp_path)
    kill_until_done(place, seed, most_kills=2)
    study = check_files(place.storage, "killed", place.printed)
    if study.left:
        assert place.run(*RESUME) == 0, place.printed
    study = check_files(place.storage, "killed", place.printed)
    check_ended(study)
    assert accounts(study) == undisturbed  # O6, and the scheduler's decisions
    place.check_nothing_left(killed=True)
    check_mlflow(study, place.mlflow)


@pytest.mark.chaos
@pytest.mark.ray
def test_a_soak_of_kills_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL, SIGTERM and SIGINT for as long as SAMTUNE_SOAK_S says, workers and driver."""
    place = Workplace(tmp_path, STUDY.replace("trials: 7", "trials: 2000"))
    random = np.random.default_rng(int(time.time()))
    deadline = time.monotonic() + SOAK_S
    arguments: tuple[str, ...] = ("run", "killed.yaml")
    sessions = 0
    while time.monotonic() < deadline:
        process = place.start(*arguments)
        number = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[int(random.integers(3))]
        killed = place.kill_after(
            process, int(random.integers(1, 30)), number, float(random.uniform(0, 1))
        )
        code = place.finish(process)
        assert killed, place.printed[-3000:]
        assert code == (-9 if number == signal.SIGKILL else 128 + number)
        sessions += 1
        check_files(place.storage, "killed", place.printed)
        arguments = RESUME
    place.run("sync", "killed", "--plugin", "slow_plugin")
    study = open_study("killed", place.storage)
    check_mlflow(study, place.mlflow)
    place.check_nothing_left(killed=True)
    epochs = sum(len(t.epochs) for t in study.trials)
    print(f"soak: {sessions} sessions, {len(study.trials)} trials, {epochs} epochs")


@pytest.mark.chaos
@pytest.mark.ray
def test_a_run_that_nobody_listens_to_any_more_ends_cleanly_and_says_how_to_go_on(
    tmp_path: Path,
) -> None:
    """As `samtune run FILE | head -1` does."""
    place = Workplace(tmp_path, STUDY.replace("trials: 7", "trials: 3"))
    with (tmp_path / "said").open("w+") as said:
        process = place.start("run", "killed.yaml", stderr=said)
        assert process.stdout is not None
        next(line for line in process.stdout if " starts: " in line)
        process.stdout.close()
        assert process.wait(120) == 1
        said.seek(0)
        assert re.fullmatch(
            "samtune: nobody reads standard output .*`samtune resume killed --plugin slow_plugin`.",
            said.read().strip(),
        )
    study = check_files(place.storage, "killed", "")
    assert study.state == "interrupted"
    place.check_nothing_left(killed=False)
    assert place.run(*RESUME) == 0, place.printed
    check_ended(check_files(place.storage, "killed", place.printed))
