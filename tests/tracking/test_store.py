"""A study is recorded in one place, wherever one stands, and no password is written down."""

from __future__ import annotations

import json
import os
from pathlib import Path

import mlflow
import pytest

from samtune import tracking
from samtune.config.trial import Named
from samtune.errors import SamtuneError
from samtune.secrets import is_secret, without_password
from samtune.study.folder import StudyFolder
from samtune.tracking.redaction import masked, redacted
from samtune.tracking.store import (
    CLIENT_ENVIRONMENT,
    remember,
    store_of,
    tracking_uri,
    use_client_environment,
)
from tests.tracking.conftest import append, free_port, runs_of


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_study_stays_in_its_store_wherever_one_stands(
    folder: StudyFolder, tmp_path: Path, mlflow_here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    tracking.sync(folder)
    append(folder.trial("t0002"), 2)
    monkeypatch.chdir(elsewhere)
    tracking.sync(folder)
    assert not (elsewhere / "mlflow.db").exists()
    assert set(runs_of(f"sqlite:///{mlflow_here}")) == {"study", "t0001", "t0002"}


def test_another_store_is_taken_at_the_users_word_and_said(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(folder.root, store_of(folder.root).address)
    before = store_of(folder.root)
    assert before.change == ""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:pw@host:5000")
    asked = store_of(folder.root)
    assert asked.uri == "http://me:pw@host:5000"
    assert asked.change == (
        f"MLflow: this study was recorded at {before.address}; MLFLOW_TRACKING_URI asks for "
        "http://me:***@host:5000, so all of it goes there"
    )


def test_a_relative_database_is_the_one_of_that_moment(
    folder: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine.db")
    assert tracking_uri() == f"sqlite:///{tmp_path}/mine.db"


def test_a_password_that_is_not_written_down_is_asked_for(
    folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:pw@host/db")
    remember(folder.root, store_of(folder.root).address)
    assert "pw" not in (folder.root / "mlflow.json").read_text()
    assert store_of(folder.root).change == ""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(SamtuneError, match="set MLFLOW_TRACKING_URI to that address"):
        store_of(folder.root)


def test_a_store_that_never_answered_is_not_remembered(
    folder: StudyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(SamtuneError):
        tracking.sync(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert store_of(folder.root).uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert store_of(folder.root).change == ""


def test_what_another_store_has_does_not_count(
    folder: StudyFolder, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking.sync(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with tracking.following(folder.root):
        pass
    assert "4 epochs" in tracking.wait_until_shipped(folder.root).missing


@pytest.mark.parametrize("damage", [b"", b"{", b'{"store": 3}', b"\xff\xfe"])
def test_a_damaged_memory_of_the_store_is_made_up_for(folder: StudyFolder, damage: bytes) -> None:
    (folder.root / "tracking.json").write_text(json.dumps({"uri": "sqlite:////there/mlflow.db"}))
    (folder.root / "mlflow.json").write_bytes(damage)
    assert store_of(folder.root).uri == "sqlite:////there/mlflow.db"


def test_the_users_own_settings_of_the_client_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CLIENT_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    use_client_environment()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"


def test_the_users_registry_is_the_one_that_is_used(
    folder: StudyFolder, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from samtune.tracking.shipper import Shipper

    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "http://registry:1")
    assert Shipper(folder, uri).client._registry_uri == "http://registry:1"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("postgresql://host/db?user=me&password=x", "postgresql://host/db?user=me&password=***"),
        ("see https://a:b@c/d and e@f.g", "see https://a:***@c/d and e@f.g"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
    ],
)
def test_a_password_is_not_shown(text: str, shown: str) -> None:
    assert without_password(text) == shown


def test_a_decoded_password_is_masked_too() -> None:
    assert masked("login of me with p@ss failed", ["http://me:p%40ss@h"]) == (
        "login of me with *** failed"
    )


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"])
def test_what_mlflows_own_variables_keep_secret_is_masked(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "hunter2")
    assert masked("401: hunter2 is not welcome") == "401: *** is not welcome"


@pytest.mark.parametrize("name", ["token", "dataset.hf_token", "API_KEY", "apiKey", "db.password"])
def test_names_that_look_secret(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["tokens_per_batch", "monkey", "key", "author", "tokenizer"])
def test_names_that_do_not(name: str) -> None:
    assert not is_secret(name)


def test_only_texts_are_redacted_and_all_below_a_secret_name() -> None:
    settings = {"token": "abc", "n": 3, "password": 5, "search.token": [{"choice": ["a", "b"]}]}
    assert redacted(settings) == {
        "token": "***",
        "n": 3,
        "password": 5,
        "search.token": [{"choice": ["***", "***"]}],
    }


def test_a_secret_setting_reaches_neither_parameters_nor_the_study_file(
    folder: StudyFolder, uri: str
) -> None:
    config = folder.config()
    secrets = Named(name="digits", token="hf_abc", mirror="https://me:pw@host/x")
    trial = config.trial.model_copy(update={"dataset": secrets})
    folder.save_config(config.model_copy(update={"trial": trial}), 1, None)
    tracking.sync(folder)
    run = runs_of(uri)["study"]
    assert run.data.params["trial.dataset.token"] == "***"
    assert run.data.params["trial.dataset.mirror"] == "https://me:***@host/x"
    artifact = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/study.yaml")
    assert "token: '***'" in artifact
    assert "https://me:***@host/x" in artifact
    assert "hf_abc" not in artifact
    assert "lr: 0.1" in artifact


def test_the_page_of_a_study_is_an_artifact_and_sent_again_once_it_has_changed(
    folder: StudyFolder, uri: str
) -> None:
    page = folder.root / "report.html"
    tracking.sync(folder)
    artifacts = runs_of(uri)["study"].info.artifact_uri
    for text in ("<p>so far</p>", "<p>at the end</p>"):
        page.write_text(text)
        tracking.sync(folder)
        assert mlflow.artifacts.load_text(f"{artifacts}/report.html") == text
