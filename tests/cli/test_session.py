"""What a session shows while it runs: a panel on a terminal, lines in a pipe, JSON for programs."""

from __future__ import annotations

import io
import json
import os
import pty
from collections.abc import Callable

import pytest
from rich.console import Console, ConsoleDimensions

from samtune.cli.lines import LONGEST_SILENCE_S, Events, Lines
from samtune.cli.panel import LivePanel, sparkline
from samtune.cli.progress import Progress
from samtune.cli.session import Detail, attend, detail_of
from samtune.config.schema import StudyConfig
from samtune.errors import SamtuneError
from samtune.study import Study, StudyFolder
from samtune.study.trial_folder import Outcome
from tests.commands import samtune_here

Make = Callable[..., StudyConfig]
VALUES = {"sam.rho": 0.5, "optimizer.lr": 0.1}


def _drawn(panel: LivePanel) -> str:
    with panel.console.capture() as captured:
        panel.console.print(panel._panel())
    return captured.get()


def _wide() -> Console:
    return Console(width=120, file=io.StringIO())


def _epochs(progress: Progress, key: str, *values: float) -> None:
    for epoch, value in enumerate(values, 1):
        progress.on_epoch(key, epoch, {"val_accuracy": value, "train_loss": 1.0}, 0.5)


def test_a_resumed_study_counts_on_from_where_it_was(
    begun: StudyFolder, study_config: Make
) -> None:
    before = Study(begun, study_config())
    assert before.left == 3
    panel = LivePanel(study_config(), before, before.left, _wide())
    assert "2/5 trials" in _drawn(panel)
    assert "2 before" in _drawn(panel)
    assert "best val_accuracy 0.1000" in _drawn(panel)
    panel.on_start("t0002", VALUES, 0)
    panel.on_end("t0002", Outcome("finished", 3), 0.5)
    assert "3/5 trials" in _drawn(panel)
    assert "1 finished, 2 before" in _drawn(panel)
    assert "0/5 trials" in _drawn(LivePanel(study_config(), None, 5, _wide()))


def test_the_panel_shows_each_trials_curve_its_next_rung_and_the_gain(study_config: Make) -> None:
    panel = LivePanel(study_config(), None, 5, _wide())
    assert "starting; 0 s of training" in _drawn(panel)
    panel.on_start("t0000", {"sam.rho": 0.0}, 0)
    assert "none ended yet; 0 s of training" in _drawn(panel)
    panel.on_end("t0000", Outcome("finished", 3), 0.5)
    panel.on_start("t0001", VALUES, 0)
    _epochs(panel, "t0001", 0.6, 0.9)
    shown = _drawn(panel)
    assert "best val_accuracy 0.9000 (+0.4000 over sgd alone)  t0001  rho 0.5, lr 0.1" in shown
    row = next(line for line in shown.splitlines() if " t0001 " in line and "2/3" in line)
    assert row.split()[1:6] == ["t0001", "2/3", "-", "0.9000", "▁█"]  # rungs are at 1 and 2
    assert "1 finished; 1 s of training" in shown


@pytest.mark.parametrize(
    ("curve", "bars"),
    [([], ""), ([0.3], "▁"), ([0.2, 0.2], "▁▁"), ([0, 1, 0.5], "▁█▅"), (range(20), "▁▂▃▃▄▅▆▆▇█")],
)
def test_a_curves_latest_values_are_bars(curve: list[float], bars: str) -> None:
    assert sparkline(curve) == bars


def test_what_is_left_is_told_from_how_far_trials_went(
    study_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr("time.monotonic", lambda: clock)
    progress = Progress(
        study_config(("trials: 4", "trials: 7"), ("epochs: 3", "epochs: 9")), None, 8
    )
    for number in range(3):
        key = f"t{number + 1:04d}"
        progress.on_start(key, VALUES, 0)
        assert progress.left_s is None
        for epoch in range(1, 4):
            clock += 0.5
            progress.on_epoch(key, epoch, {"val_accuracy": 0.1}, 0.5)
        progress.on_end(key, Outcome("stopped", 3), 0.1)
    # Half a second an epoch: three to come for each of the five trials that have not begun.
    assert progress.left_s == pytest.approx(5 * 3 * 0.5)
    progress.on_start("t0004", VALUES, 0)
    clock += 2.5
    for epoch in range(1, 6):
        progress.on_epoch("t0004", epoch, {"val_accuracy": 0.1}, 0.5)
    # It went further than any before, so it may go on to the end.
    assert progress.left_s == pytest.approx((4 + 4 * 3) * 0.5)


def test_a_pipe_gets_a_line_for_each_end_and_trouble(
    study_config: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0
    monkeypatch.setattr("time.monotonic", lambda: clock)
    lines = Lines(study_config(), None, 5, verbose=False)
    lines.on_start("t0000", {"sam.rho": 0.0}, 0)
    _epochs(lines, "t0000", 0.5)
    lines.on_end("t0000", Outcome("finished", 3), 0.5)
    lines.on_start("t0001", VALUES, 2)
    lines.on_retry("t0001", "it died")
    lines.on_wait("t0001", "disk full")
    lines.on_end("t0001", Outcome("diverged", 3, "the loss is nan"), 0.4)
    clock = LONGEST_SILENCE_S + 1
    lines.on_start("t0002", VALUES, 0)
    _epochs(lines, "t0002", 0.6, 0.7)
    lines.on_set_aside("t0002", "disk full")
    assert capsys.readouterr().out.splitlines() == [
        "[1/5] t0000 (baseline) finished after epoch 3, val_accuracy 0.5000; rho 0; "
        "the best so far",
        "t0001 starts: rho 0.5, lr 0.1, goes on after epoch 2",
        "t0001 lost its worker and goes on in another: it died",
        "t0001 waits for the storage: disk full",
        "[2/5] t0001 diverged after epoch 3: the loss is nan, val_accuracy 0.4000; rho 0.5, lr 0.1",
        "2/5 trials done, t0002 epoch 1/3 val_accuracy 0.6000 train_loss 1.0000 (0.5 s)",
        "t0002 is left to the next session: disk full",
    ]


def test_verbose_adds_each_start_and_epoch(
    study_config: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = Lines(study_config(), None, 5, verbose=True)
    lines.on_start("t0001", VALUES, 0)
    _epochs(lines, "t0001", 0.6)
    assert capsys.readouterr().out.splitlines() == [
        "t0001 starts: rho 0.5, lr 0.1",
        "t0001 epoch 1/3 val_accuracy 0.6000 train_loss 1.0000 (0.5 s)",
    ]


def test_every_event_is_a_line_of_json(
    study_config: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    events = Events(study_config(), None, 5)
    events.on_start("t0001", VALUES, 0)
    _epochs(events, "t0001", 0.6)
    events.on_retry("t0001", "it died")
    events.on_wait("t0001", "full")
    events.on_end("t0001", Outcome("finished", 3), 0.6)
    events.on_set_aside("t0002", "full")
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = ["start", "epoch", "worker_lost", "storage_wait", "end", "set_aside"]
    assert [event["event"] for event in said] == names
    metrics = {"val_accuracy": 0.6, "train_loss": 1.0}
    assert said[1] == {
        "event": "epoch",
        "trial": "t0001",
        "epoch": 1,
        "metrics": metrics,
        "duration_s": 0.5,
    }
    assert (said[4]["state"], said[4]["score"], said[4]["best"]) == ("finished", 0.6, True)


def test_two_ways_to_show_a_session_exclude_each_other() -> None:
    assert detail_of(verbose=False, quiet=False, json_events=False) is Detail.BRIEF
    with pytest.raises(SamtuneError, match="--verbose and --json-events exclude each other"):
        detail_of(verbose=True, quiet=False, json_events=True)


@pytest.mark.parametrize("detail", [Detail.QUIET, Detail.EVENTS])
def test_a_silent_session_ends_with_its_study(
    begun: StudyFolder, study_config: Make, detail: Detail, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(begun, study_config())
    attend(
        lambda _: study,
        detail=detail,
        config=study.config,
        before=study,
        to_run=3,
        folder=begun.root,
    )
    said = capsys.readouterr().out
    if detail is Detail.EVENTS:
        first, event = [json.loads(line) for line in said.splitlines()]
        assert first == {"event": "session", "study": "tiny", "trials": 3}
        assert (event["event"], event["name"]) == ("study", "tiny")
        assert [t["trial"] for t in event["trials"]] == ["t0000", "t0001"]
    else:
        assert said.startswith("\nstudy tiny: 1 finished, 1 stopped\n")


def test_resuming_what_is_done_answers_programs_too(begun: StudyFolder, study_config: Make) -> None:
    folder = begun.root.parents[1]
    (begun.root / "study.yaml").write_text(
        (begun.root / "study.yaml").read_text().replace("trials: 4", "trials: 1")
    )
    told = samtune_here("resume", "tiny", "--json-events", cwd=folder)
    assert json.loads(told.stdout)["state"] == "finished"
    assert begun.config().study.trials == 1  # what was changed is kept, although nothing is run
    quiet = samtune_here("resume", "tiny", "--quiet", cwd=folder)
    assert "There is nothing to do" in quiet.stdout


@pytest.fixture
def terminal() -> Console:
    """A terminal of 100 columns; its file is the side that programs write to."""
    _, follower = pty.openpty()
    _resize(follower, 100)
    return Console(file=os.fdopen(follower, "w"), force_terminal=True)


def _resize(descriptor: int, columns: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))


def test_a_resized_terminal_is_cleared_and_a_lost_size_changes_nothing(
    study_config: Make, terminal: Console
) -> None:
    panel = LivePanel(study_config(), None, 5, terminal)
    clear = "\x1b[2J"
    assert clear not in _drawn(panel)
    assert terminal.size == ConsoleDimensions(100, 40)
    _resize(terminal.file.fileno(), 60)
    assert clear in _drawn(panel)
    assert clear not in _drawn(panel)
    assert terminal.size == ConsoleDimensions(60, 40)
    _resize(terminal.file.fileno(), 0)
    assert clear not in _drawn(panel)
    assert terminal.size == ConsoleDimensions(60, 40)


def test_a_terminal_of_unknown_size_gets_lines(
    begun: StudyFolder,
    study_config: Make,
    terminal: Console,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _resize(terminal.file.fileno(), 0)
    monkeypatch.setattr("samtune.cli.console.new_console", lambda **_: terminal)
    study = Study(begun, study_config())

    def start(listener: Progress) -> Study:
        listener.on_start("t0002", VALUES, 1)
        return study

    attend(
        start,
        detail=Detail.BRIEF,
        config=study.config,
        before=study,
        to_run=3,
        folder=begun.root,
        sums_up=False,
    )
    assert capsys.readouterr().out == "t0002 starts: rho 0.5, lr 0.1, goes on after epoch 1\n"
