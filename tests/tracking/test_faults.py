"""Whatever an MLflow server does, each point arrives once, in the right run, or waits and is said.

A real server stands behind a proxy that loses replies, refuses, hangs or is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import requests

from samtune import tracking
from samtune.errors import SamtuneError
from samtune.study.folder import StudyFolder
from samtune.tracking.faults import is_about_content, is_refusal, is_unanswered, is_unreachable
from samtune.tracking.process import _Follower
from samtune.tracking.records import report
from samtune.tracking.shipper import Shipper
from tests.tracking.conftest import (
    Proxy,
    append,
    assert_all_there,
    free_port,
    points_of,
    runs_of,
)


def _first_time(endings: tuple[str, ...], fate: str):  # type: ignore[no-untyped-def]
    """A rule: the first request of each body to these paths meets this fate."""
    met: set[tuple[str, bytes]] = set()

    def rule(method: str, path: str, body: bytes) -> str:
        if path.endswith(endings) and (path, body) not in met:
            met.add((path, body))
            return fate
        return "pass"

    return rule


@pytest.mark.parametrize("retries", ["0", "3"])
def test_a_lost_reply_to_create_run_makes_no_second_run(
    remote: StudyFolder,
    proxy: Proxy,
    direct: str,
    retries: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", retries)  # the user's own wish
    proxy.rule = _first_time(("runs/create", "experiments/create"), "drop")
    sent, found = tracking.sync(remote)
    assert (sent, found.missing) == (12, "")
    assert_all_there(direct, remote)
    assert runs_of(direct, remote.name)["study"].info.status == "KILLED"  # trials are left


def test_every_second_reply_lost_costs_no_point(
    remote: StudyFolder, proxy: Proxy, direct: str
) -> None:
    proxy.rule = lambda *_: "drop" if len(proxy.seen) % 2 else "pass"
    tracking.sync(remote)
    assert_all_there(direct, remote)
    assert len(runs_of(direct, remote.name)["study"].data.params) > 10


@pytest.mark.parametrize("fate", ["500", "429"])
def test_a_server_in_trouble_is_asked_again(
    remote: StudyFolder, proxy: Proxy, direct: str, fate: str
) -> None:
    proxy.rule = lambda *_: fate if len(proxy.seen) in (1, 2, 5, 9, 10, 14) else "pass"
    tracking.sync(remote)
    assert_all_there(direct, remote)


def test_what_is_refused_keeps_nothing_else_back(
    remote: StudyFolder, proxy: Proxy, direct: str
) -> None:
    tracking.sync(remote)
    bad = runs_of(direct, remote.name)["t0002"].info.run_id
    for key in ("t0002", "t0004"):
        append(remote.trial(key), 4)
    proxy.rule = lambda method, path, body: (
        "403" if path.endswith("log-batch") and bad.encode() in body else "pass"
    )
    with pytest.raises(SamtuneError, match="refuses 1 record.*t0002.*403"):
        tracking.sync(remote)
    runs = runs_of(direct, remote.name)
    assert [len(points_of(direct, runs[k], "val_accuracy")) for k in ("t0002", "t0004")] == [3, 4]
    proxy.rule = lambda *_: "pass"
    tracking.sync(remote)
    assert_all_there(direct, remote)


def test_one_refused_epoch_is_named_and_the_others_arrive(
    remote: StudyFolder, proxy: Proxy, direct: str
) -> None:
    append(remote.trial("t0002"), 4, train_loss=0.12345)
    append(remote.trial("t0002"), 5)
    proxy.rule = lambda method, path, body: "400" if b"0.12345" in body else "pass"
    with pytest.raises(SamtuneError, match="refuses 1 record.*t0002 epoch 4"):
        tracking.sync(remote)
    runs = runs_of(direct, remote.name)
    assert [p[0] for p in points_of(direct, runs["t0002"], "train_loss")] == [1, 2, 3, 5]
    assert runs["t0002"].info.status == "FINISHED"
    assert runs["t0004"].info.status == "FINISHED"


@pytest.mark.parametrize("fate", ["403", "500"])
def test_a_refused_artifact_stops_no_point(
    remote: StudyFolder, proxy: Proxy, direct: str, fate: str
) -> None:
    proxy.rule = lambda method, path, body: fate if "artifacts" in path else "pass"
    if fate == "403":  # for good: said, and no more
        _, found = tracking.sync(remote)
        assert any("study.yaml" in note for note in found.notes)
    else:
        with pytest.raises(SamtuneError, match="study.yaml|500"):
            tracking.sync(remote)
    assert_all_there(direct, remote)


def test_a_server_that_hangs_ends_a_round_after_three_calls(
    remote: StudyFolder, proxy: Proxy, direct: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    shipper = Shipper(remote, proxy.uri)
    hung: list[bytes] = []

    def rule(method: str, path: str, body: bytes) -> str:
        if b'"train_loss"' not in body or not path.endswith("log-batch"):
            return "pass"
        hung.append(body)
        return "hang"

    proxy.rule = rule
    result = shipper.ship()
    assert "ReadTimeoutError" in result.failure
    assert len(set(hung)) == 3  # of four trials; each is asked twice
    proxy.rule = lambda *_: "pass"
    while shipper.ship().failure:
        pass
    assert_all_there(direct, remote)


def test_nobody_there_is_said_at_once(remote: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    started = time.monotonic()
    with pytest.raises(SamtuneError, match="MLflow at http"):
        tracking.sync(remote)
    assert time.monotonic() - started < 10
    assert report(remote.root).missing == "12 epochs and the state of 5 runs"


def test_a_password_in_the_address_reaches_no_file(
    remote: StudyFolder, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = proxy.uri.replace("http://", "http://me:hunter%402@")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    proxy.rule = lambda *_: "500"
    with pytest.raises(SamtuneError) as refused:
        tracking.sync(remote)
    proxy.rule = lambda *_: "pass"
    tracking.sync(remote)
    written = "".join(p.read_text() for p in remote.root.glob("*.json")) + str(refused.value)
    assert "hunter" not in written
    assert "me:***@" in written


def test_a_study_without_a_trial_leaves_no_process(
    study_folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with tracking.following(study_folder.root):
        pass
    assert tracking.wait_until_shipped(study_folder.root).missing == ""
    assert _shipping(study_folder.root) == []


def test_a_shipper_that_cannot_start_is_given_up_once_the_driver_has_ended(
    study_folder: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, starts = tmp_path / "python", tmp_path / "starts"
    program.write_text(f"#!/bin/sh\necho started >> {starts}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with tracking.following(study_folder.root):
        pass
    tracking.wait_until_shipped(study_folder.root, 10)
    # Once while the driver was at work, and a few times after that.
    assert 2 <= len(starts.read_text().splitlines()) <= 5


def test_a_killed_shipper_is_started_again(remote: StudyFolder, proxy: Proxy, direct: str) -> None:
    with tracking.following(remote.root):
        deadline = time.monotonic() + 30
        while not (begun := _shipping(remote.root)) and time.monotonic() < deadline:
            time.sleep(0.01)  # a process that has just begun has no command line yet
        (first,) = begun
        os.kill(first, signal.SIGKILL)
    assert tracking.wait_until_shipped(remote.root, 120).missing == ""
    assert_all_there(direct, remote)
    assert _shipping(remote.root) == []


@pytest.mark.parametrize(
    ("statuses", "refusal", "about_content"),
    [
        ([399, 408, 425, 429, 499, 500, 503], False, False),
        ([400, 409, 413, 422], True, True),
        ([401, 403, 404, 498], True, False),
    ],
)
def test_what_a_status_means(statuses: list[int], refusal: bool, about_content: bool) -> None:
    for status in statuses:
        response = requests.Response()
        response.status_code = status
        error = requests.HTTPError(response=response)
        assert is_refusal(error) is refusal
        assert is_about_content(error) is about_content
        assert is_unanswered(error) is not refusal


def test_an_error_that_is_not_mlflows_is_no_answer_of_its_own() -> None:
    assert not is_unanswered(ValueError("ours"))
    assert not is_refusal(ValueError("ours"))


def test_a_refused_connection_is_seen_behind_what_it_led_to() -> None:
    def raised() -> None:
        try:
            raise ConnectionRefusedError
        except ConnectionRefusedError as error:
            try:
                raise OSError from error
            except OSError:
                raise ValueError from None

    with pytest.raises(ValueError) as told:
        raised()
    assert is_unreachable(told.value)
    assert not is_unreachable(ValueError())


def _shipping(root: Path) -> list[int]:
    """The processes that ship this study."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"samtune.tracking" in words and str(root).encode() in words:
            found.append(int(entry.parent.name))
    return found


def test_an_hour_without_mlflow_is_two_lines_of_the_log(
    remote: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    follower = _Follower(remote.root, "http://127.0.0.1:9")
    for failure in ("", "nobody there", "nobody there", "", ""):
        follower._say(failure)
    said = [line.split(" ", 2)[2] for line in capsys.readouterr().err.splitlines()]
    assert said == ["nobody there", "MLflow takes everything again"]
