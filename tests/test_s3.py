"""Puts on a condition, and what a client is told when the store or the way to it fails."""

from __future__ import annotations

import pytest

from samtune import s3 as client
from samtune.s3 import Bucket, ChangedError, Found
from tests.s3_server import S3, Request


@pytest.fixture
def bucket(s3: S3) -> Bucket:
    return Bucket(s3.new_bucket())


def _once(kind: str, fault: str) -> object:
    """A fault of the first request of this kind alone."""
    left = [fault]

    def happens(request: Request) -> str:
        return left.pop() if request.kind == kind and left else ""

    return happens


def test_what_is_put_replaces_what_was_seen_and_nothing_newer(bucket: Bucket) -> None:
    first = bucket.put("a/b", b"1")
    assert bucket.get("a/b") == Found(b"1", first)
    with pytest.raises(ChangedError, match="changed by somebody else"):
        bucket.put("a/b", b"2")  # it was taken to be absent
    second = bucket.put("a/b", b"2", first)
    with pytest.raises(ChangedError):
        bucket.put("a/b", b"3", first)
    with pytest.raises(ChangedError):
        bucket.put("none", b"3", first)  # it was taken to be there
    assert bucket.get("a/b", unless=second) == Found(b"", second)
    assert bucket.get("a/b", unless=first) == Found(b"2", second)
    assert bucket.get("none") is None
    assert bucket.listed("a/") == {"a/b": (second, 1)}
    assert bucket.folders("") == ["a"]
    age_s = bucket.age_s("a/b")
    assert age_s is not None
    assert 0 <= age_s < 60
    bucket.delete("a/b")
    bucket.delete("a/b")
    assert bucket.get("a/b") is None
    assert bucket.age_s("a/b") is None


def test_a_put_whose_reply_was_lost_is_known_by_its_content(s3: S3, bucket: Bucket) -> None:
    s3.fault = _once("put", "lost")  # type: ignore[assignment]
    tag = bucket.put("a", b"1")  # the client tries again, and the condition does not hold any more
    assert bucket.get("a") == Found(b"1", tag)


@pytest.mark.parametrize("fault", ["busy", "cut"])
def test_a_store_that_is_busy_for_a_moment_is_asked_again(
    s3: S3, bucket: Bucket, fault: str
) -> None:
    s3.fault = _once("put", fault)  # type: ignore[assignment]
    bucket.put("a", b"1" * 100_000)
    assert bucket.get("a")


@pytest.mark.parametrize(
    ("fault", "said"), [("busy", "SlowDown"), ("denied", "Access Denied"), ("cut", "onnection")]
)
def test_what_fails_for_good_is_an_os_error_that_names_the_object_and_leaves_what_was_there(
    s3: S3, bucket: Bucket, fault: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "TRIES", 1)
    tag = bucket.put("a", b"1")
    s3.fault = lambda request: fault
    for act in (lambda: bucket.put("a", b"2" * 100_000, tag), lambda: bucket.get("a")):
        with pytest.raises(OSError, match=said) as caught:
            act()
        assert caught.value.filename == f"s3://{bucket.name}/a"
        assert "secret" not in str(caught.value)
    s3.fault = lambda request: ""
    assert bucket.get("a") == Found(b"1", tag)


def test_a_large_file_goes_in_parts(
    s3: S3, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LARGE", 5 * 2**20)
    content = bytes(12 * 2**20)
    tag = bucket.put("large", content)
    assert bucket.get("large") == Found(content, tag)
    assert s3.counts()["put"] == 3
