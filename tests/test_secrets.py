"""A secret is named in a study file and taken from the environment; no file or message holds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from samtune.data import load_dataset
from samtune.errors import SamtuneError
from samtune.secrets import is_secret, said_openly, without_password
from tests.commands import samtune_here
from tests.conftest import TINY

SECRET = "hf_0123456789abcdef"
PLUGIN = """
from samtune import register_dataset
from samtune.data import load_dataset

@register_dataset("private_digits")
def private_digits(*, token: str, address: str = ""):
    if token != "hf_0123456789abcdef":
        raise ValueError(f"401: {token} is refused")
    if address.endswith("down"):
        raise ValueError(f"{token} cannot reach {address}")
    return load_dataset("digits", label_noise=0.4)
"""


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "private_plugin.py").write_text(PLUGIN)
    dataset = "{name: private_digits, token: '${DIGITS_TOKEN}'}"
    text = TINY.replace("{name: digits, label_noise: 0.4}", dataset)
    (tmp_path / "tiny.yaml").write_text(f"plugins: [private_plugin]\n{text}")
    monkeypatch.setenv("DIGITS_TOKEN", SECRET)
    return tmp_path


def test_a_secret_is_used_and_written_nowhere(workplace: Path) -> None:
    trained = samtune_here("train", "tiny.yaml", "training.epochs=1", cwd=workplace)
    assert trained.returncode == 0, trained.stderr
    exported = ("export", "tiny-train", "-o", "best.pt", "--plugin", "private_plugin")
    shown = [
        trained,
        samtune_here("check", "tiny.yaml", cwd=workplace),
        samtune_here("show", "tiny-train", "t0001", cwd=workplace),
        samtune_here(*exported, cwd=workplace),
    ]
    for ended in shown:
        assert ended.returncode == 0, ended.stderr
        assert SECRET not in ended.stdout + ended.stderr
    written = [p for p in workplace.rglob("*") if p.is_file() and "private_plugin" not in p.name]
    assert len(written) > 6
    assert [p for p in written if SECRET.encode() in p.read_bytes()] == []
    study = workplace / "samtune_studies/tiny-train"
    assert "${DIGITS_TOKEN}" in (study / "trials/t0001/trial.json").read_text()


def test_what_a_data_set_says_of_its_secret_is_not_repeated(workplace: Path) -> None:
    ended = samtune_here("run", "tiny.yaml", "--dry-run", "dataset.address=down", cwd=workplace)
    assert ended.returncode == 2
    assert "ValueError: *** cannot reach down" in ended.stderr
    assert SECRET not in ended.stderr


def test_a_variable_that_is_not_set_is_named(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIGITS_TOKEN")
    ended = samtune_here("check", "tiny.yaml", cwd=workplace)
    assert ended.returncode == 2
    assert "token is taken from the environment variable DIGITS_TOKEN, which is not" in ended.stderr


@pytest.mark.parametrize(
    "override",
    [
        f"dataset.token={SECRET}",
        f"dataset.address=https://me:{SECRET}@host/x",
        f"search_space.dataset.token={{choice: [{SECRET}]}}",
        f"dataset=https://me:{SECRET}@host",
    ],
)
def test_a_secret_written_out_is_refused_and_not_repeated(workplace: Path, override: str) -> None:
    ended = samtune_here("check", "tiny.yaml", override, cwd=workplace)
    assert ended.returncode == 2
    assert SECRET not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    if not override.startswith("dataset=http"):
        assert "put" in ended.stderr
        assert "environment variable" in ended.stderr


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        *((key, True) for key in ("token", "hf_token", "API_KEY", "apikey", "db-secret")),
        *((key, False) for key in ("tokens", "token_size", "key", "secretary", "label_noise")),
    ],
)
def test_secrets_are_known_by_their_names(key: str, secret: bool) -> None:
    assert is_secret(key) is secret


@pytest.mark.parametrize("value", [None, "", True, "${TOKEN}", "Bearer ${TOKEN}"])
def test_what_holds_no_secret_is_left_alone(value: object) -> None:
    assert said_openly("token", value) == ""


def test_passwords_in_addresses_are_hidden() -> None:
    assert without_password("at postgresql://me:pa55@host/db") == "at postgresql://me:***@host/db"
    assert said_openly("root", "https://me:${PW}@host") == ""
    assert "${PASSWORD}" in said_openly("root", "https://me:pw@host")


def test_a_dollar_that_names_no_variable_stays(tmp_path: Path) -> None:
    with pytest.raises(SamtuneError, match=r"\$HOME/x"):
        load_dataset("image_folder", root=str(tmp_path / "$HOME/x"))
