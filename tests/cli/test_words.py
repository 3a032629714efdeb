"""What verbs say while they work, and when something is not as it should be."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from samtune.cli.console import epoch_line
from samtune.cli.panel import LivePanel
from samtune.cli.progress import STOPPING, Progress
from samtune.config.checked_trial import record_of
from samtune.config.schema import StudyConfig
from samtune.preflight import warnings_of
from samtune.study import StudyFolder
from samtune.study.trial_folder import Outcome
from samtune.tuning.signals import Signals
from samtune.words import big, duration, short_duration, size
from tests.cli.conftest import append_epoch
from tests.commands import as_from_a_terminal, samtune_here
from tests.conftest import TINY

Make = Callable[..., StudyConfig]


@pytest.mark.parametrize(
    ("seconds", "short", "long"),
    [
        (0.314, "0.31 s", "0 s"),
        (9.96, "10 s", "10 s"),
        (99.4, "99 s", "99 s"),
        (100.0, "2 min", "2 min"),
        (12345.0, "3 h 26 min", "3 h 26 min"),
    ],
)
def test_no_duration_has_an_exponent(seconds: float, short: str, long: str) -> None:
    assert short_duration(seconds) == short
    assert duration(seconds) == long


@pytest.mark.parametrize("count", [0, 7, 999, 999.6, 99_960, 999_600, 1e15, 3e18])
def test_no_size_has_an_exponent(count: float) -> None:
    assert "e" not in size(count)
    assert "e" not in big(count)
    assert epoch_line(3, 9, {"val_loss": 0.5, "other": 1.0}, 120.0) == (
        "epoch 3/9 val_loss 0.5000 (2 min)"
    )


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


RAISING = """
from torch import nn
from samtune import register_model

@register_model("raising_{when}")
class Raising(nn.Module):
    def __init__(self, *, num_classes: int, image_size: tuple[int, int], in_channels: int):
        super().__init__()
        self.when = "{when}"
        if self.when == "made":
            raise KeyError("no such layer")
        self.layer = nn.Linear(in_channels * image_size[0] * image_size[1], num_classes)

    def forward(self, x):
        if self.when == "called" or self.when == "trained" and x.device.type != "meta":
            raise TypeError("not these images")
        return self.layer(x.flatten(1))
"""


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("made", "KeyError: 'no such layer' (raising_made_plugin.py, line 11)"),
        ("called", "TypeError: not these images (raising_called_plugin.py, line 16)"),
        ("trained", "TypeError: not these images (raising_trained_plugin.py, line 16)"),
    ],
)
def test_a_model_that_raises_is_a_sentence_with_its_own_line(
    workplace: Path, when: str, said: str
) -> None:
    plugin = f"raising_{when}_plugin"
    (workplace / f"{plugin}.py").write_text(RAISING.replace("{when}", when))
    model = f"model={{name: raising_{when}}}"
    ended = samtune_here("check", "tiny.yaml", model, f"plugins=[{plugin}]", cwd=workplace)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_check_fetches_nothing_and_previews_what_needs_no_data(workplace: Path) -> None:
    fetched = "dataset={name: cifar10, root: absent}"
    ended = samtune_here("check", "tiny.yaml", fetched, cwd=workplace)
    assert ended.returncode == 0, ended.stderr
    assert "cifar10 is not here yet, so models, time and disk are not previewed" in ended.stdout
    assert "`samtune run` fetches it" in ended.stdout
    assert "4 reach epoch 1, 2 reach epoch 2" in ended.stdout
    assert not list((workplace / "absent").glob("cifar*"))
    given = "dataset={name: image_folder, root: absent}"
    ended = samtune_here("check", "tiny.yaml", given, cwd=workplace)
    assert ended.returncode == 2
    assert "4 reach epoch 1" in ended.stdout
    assert "absent" in ended.stderr


@pytest.mark.parametrize(
    ("replacements", "notes"),
    [
        (
            [("sam.rho:", "optimizer.name: {choice: [sgd, adam]}\n  sam.rho:")],
            [],  # lr is searched, and adam has no momentum
        ),
        (
            [
                ("momentum: 0.9", "weight_decay: 5.0e-4"),
                ("  optimizer.lr: {float: [0.01, 0.5], log: true}\n", ""),
                ("sam.rho:", "optimizer.name: {choice: [sgd, adam]}\n  sam.rho:"),
            ],
            [
                "optimizer adam trains with its own lr 0.001, weight_decay 0: lr 0.1, weight_decay "
                "0.0005 under trial.optimizer is sgd's alone. Search lr and weight_decay to set it"
            ],
        ),
        (
            [
                ("width_factor: 1", "width_factor: 1, dropout: 0.3"),
                ("sam.rho:", "model.name: {choice: [wide_resnet, wrn_40_4]}\n  sam.rho:"),
            ],
            ["model wrn_40_4 trains with its own dropout 0.0: dropout 0.3 under trial.model is"],
        ),
    ],
)
def test_settings_that_another_name_leaves_behind_are_said(
    study_config: Make, replacements: list[tuple[str, str]], notes: list[str]
) -> None:
    found = warnings_of(study_config(*replacements))
    assert len(found) == len(notes)
    for sentence, note in zip(found, notes, strict=True):
        assert sentence.startswith(note)


def test_a_file_that_is_not_there_has_near_ones(workplace: Path) -> None:
    ended = samtune_here("check", "tyni.yaml", cwd=workplace)
    assert ended.returncode == 2
    assert "tyni.yaml cannot be read: No such file or directory. Did you mean 'tiny.yaml'?" in (
        ended.stderr
    )


def test_ui_makes_no_database_where_no_study_was_run(workplace: Path) -> None:
    ended = samtune_here("ui", cwd=workplace)
    assert ended.returncode == 2
    assert "no study was run from this folder yet" in ended.stderr
    assert not (workplace / "mlflow.db").exists()


def test_ui_on_a_busy_port_is_a_sentence(workplace: Path) -> None:
    (workplace / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        ended = samtune_here("ui", "--port", port, cwd=workplace)
    assert ended.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert "take another with --port" in ended.stderr
    assert "http://" not in ended.stdout


def test_ui_takes_a_free_port_while_the_usual_one_is_taken(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "mlflow.db").touch()
    called: list[list[str]] = []
    monkeypatch.setattr(subprocess, "call", lambda command, **_: called.append(command) or 0)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        usual = busy.getsockname()[1]
        monkeypatch.setattr("samtune.cli.ui.USUAL_PORT", usual)
        ended = samtune_here("ui", cwd=workplace)
    assert ended.returncode == 0, ended.stderr
    ((*_, port),) = called
    assert int(port) not in (0, usual)
    assert f"MLflow UI on http://127.0.0.1:{port} " in ended.stdout


def test_the_database_password_is_in_no_argument(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[list[str], dict[str, str]]] = []

    def call(command: list[str], *, env: dict[str, str]) -> int:
        called.append((command, env))
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:pa55@host/db")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    ended = samtune_here("ui", "--port", port, cwd=workplace)
    ((command, environment),) = called
    assert "pa55" not in " ".join(command) + ended.stdout
    assert environment["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:pa55@host/db"
    assert environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert command[command.index("--host") + 1] == "127.0.0.1"


def test_logs_that_follow_show_each_epoch_and_the_end(
    begun: StudyFolder, study_config: Make
) -> None:
    trial = begun.trial("t0002")
    trial.hand_out(record_of(study_config(), "t0002", {"sam.rho": 0.5, "optimizer.lr": 0.1}), 1)
    append_epoch(begun, "t0002", 1)

    def work() -> None:
        trial.log.write_text("hello from the model\n")
        append_epoch(begun, "t0002", 2)
        time.sleep(0.4)
        trial.end(Outcome("finished", 2))

    with begun.session():
        worker = threading.Thread(target=work)
        worker.start()
        ended = samtune_here("logs", "tiny", "t0002", "-f", cwd=begun.root.parents[1])
        worker.join()
    assert sorted(ended.stdout.splitlines()) == [
        "epoch 1/3 val_accuracy 0.1000 train_loss 1.0000 (0.25 s)",
        "epoch 2/3 val_accuracy 0.2000 train_loss 1.0000 (0.25 s)",
        "hello from the model",
    ]
    assert "t0002 finished after epoch 2" in ended.stderr


def test_following_a_study_that_nobody_runs_ends(begun: StudyFolder, study_config: Make) -> None:
    begun.trial("t0002").hand_out(record_of(study_config(), "t0002", {"sam.rho": 0.5}), 1)
    ended = samtune_here("logs", "tiny", "t0002", "-f", cwd=begun.root.parents[1])
    assert ended.returncode == 0
    assert "study tiny is not running; t0002 waits for `samtune resume`" in ended.stderr


def test_a_signal_is_acknowledged_at_once(
    study_config: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    display = Progress(study_config(), None, 5)
    signals = Signals()
    as_from_a_terminal()
    signals.search = SimpleNamespace(listener=display, stop=lambda: None)  # type: ignore[assignment]
    with signals.during_tune():
        try:
            started = time.monotonic()
            os.kill(os.getpid(), signal.SIGINT)
            assert time.monotonic() - started < 0.5
        finally:
            signals.restore()
    assert capfd.readouterr().err == f"{STOPPING}\n"
    panel = LivePanel(study_config(), None, 5, Console(width=120, file=io.StringIO()))
    panel.on_interrupt()
    assert capfd.readouterr().err == ""  # it is drawn
    with panel.console.capture() as captured:
        panel.console.print(panel._panel())
    assert STOPPING in captured.get()


def test_a_signal_is_heeded_although_the_terminal_is_gone(
    study_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    display = Progress(study_config(), None, 5)
    with os.fdopen(writer, "w") as gone:
        monkeypatch.setattr("sys.stderr", gone)
        with pytest.raises(BrokenPipeError):
            os.write(writer, b"nobody reads this")
        display.on_interrupt()
    assert display.stopping


def test_resume_says_what_it_would_not_change_and_keeps_it(
    begun: StudyFolder, study_config: Make
) -> None:
    folder = begun.root.parents[1]
    refused = samtune_here("resume", "tiny", "training.epochs=8", cwd=folder)
    assert refused.returncode == 2
    assert "trial.training.epochs: 3 -> 8; t0000 was begun with 3" in refused.stderr
    mistaken = samtune_here("resume", "tiny", "study.trails=8", cwd=folder)
    assert "command line, study.trails: no such setting. Did you mean 'trials'?" in mistaken.stderr
    assert begun.config() == study_config()


def test_an_interrupted_run_says_how_it_goes_on(workplace: Path) -> None:
    overrides = ("training.epochs=1000", "model={name: resnet, blocks: [1], channels: [4]}")
    process = subprocess.Popen(
        [sys.executable, "-m", "samtune", "train", "tiny.yaml", *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=workplace,
        preexec_fn=as_from_a_terminal,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("precision")
    assert process.stdout.readline().startswith("epoch 1")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == "Interrupted. The same command goes on after the last epoch.\n"
