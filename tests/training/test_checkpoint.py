from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from samtune.errors import SamtuneError
from samtune.files import read_json, write_atomically, write_json
from samtune.training.checkpoint import load_state, load_weights, save_state, save_weights


def test_a_state_comes_back_only_as_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    digest = save_state(path, {"w": torch.arange(3.0), "epoch": 2})
    loaded = load_state(path, digest)
    assert loaded is not None
    assert loaded["epoch"] == 2
    assert torch.equal(loaded["w"], torch.arange(3.0))

    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert load_state(path, digest) is None
    path.write_bytes(b"")
    assert load_state(path, digest) is None
    assert load_state(tmp_path / "absent.pt", digest) is None


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    import hashlib

    path, marker = tmp_path / "state.pt", tmp_path / "ran"
    torch.save({"epoch": _Payload(marker)}, path)
    assert load_state(path, hashlib.sha256(path.read_bytes()).hexdigest()) is None
    assert not marker.exists()


def test_weights_come_back_with_what_was_said_about_them(tmp_path: Path) -> None:
    tied = torch.arange(4.0)
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": tied, "b": tied}, {"epoch": 3})
    weights, about = load_weights(path, dict)
    assert about == {"epoch": 3}
    assert torch.equal(weights["a"], weights["b"])


def test_loaded_weights_outlive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    digest = save_weights(path, {"a": torch.arange(4.0)}, {})
    weights, _ = load_weights(path, dict, digest)
    path.write_bytes(b"")  # a mapped file would end this process here
    assert torch.equal(weights["a"], torch.arange(4.0))
    with pytest.raises(ValueError, match="not what was written"):
        load_weights(path, dict, digest)


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    write_atomically(path, b"old")

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="Input/output") as caught:
        write_atomically(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_json_holds_no_nan_and_an_absent_file_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert read_json(tmp_path / "x.json", dict) is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": 1', "Invalid JSON: EOF"),
        (b"", "Invalid JSON: EOF"),
        (b"[1]", "Input should be an object"),
        (b'{"a": "1"}', "a: Input should be a valid integer"),
        (b'{"a": true}', "a: Input should be a valid integer"),
        (b'{"a": ' + b"[" * 100_000, "Invalid JSON: recursion limit exceeded"),
        (b"\xff", "Invalid JSON"),
    ],
)
def test_json_of_another_shape_is_named_with_what_is_wrong(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(SamtuneError, match=rf"x.json is damaged \(.*{reason}.*restore it from a"):
        read_json(tmp_path / "x.json", dict[str, int])
