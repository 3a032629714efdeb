"""An S3 on loopback that counts what it is asked, and fails when it is told to."""

from __future__ import annotations

import logging
import re
import socket
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

Fault = Callable[["Request"], str]
BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        key: of the object; a listing's is its prefix.
        kind: `get`, `put`, `delete`, `head` or `list`.
    """

    kind: str
    key: str


def no_fault(_: Request) -> str:
    return ""


@dataclass
class S3:
    """The server, and what is wrong with it.

    Attributes:
        fault: says of a request what happens to it: `busy` (503) or `denied`; `cut`, in the middle
            of its body; `lost`, its reply, after it was carried out; else nothing.
        hidden: keys that listings lack.
        knows_conditions: whether it looks at If-Match and If-None-Match when something is put.
    """

    address: str
    requests: list[Request] = field(default_factory=list)
    fault: Fault = no_fault
    hidden: set[str] = field(default_factory=set)
    knows_conditions: bool = True

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to find it."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "secret-of-tests",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def counts(self) -> dict[str, int]:
        """How many requests of each kind there were since it was last asked."""
        counted = Counter(request.kind for request in self.requests)
        self.requests.clear()
        return dict(counted)

    def new_bucket(self) -> str:
        """The name of an empty one."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def client(self) -> Any:
        """Boto3's own, for who looks at the objects afterwards."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.address,
            aws_access_key_id="tester",
            aws_secret_access_key="secret-of-tests",
            region_name="us-east-1",
        )

    def keys(self, bucket: str) -> list[str]:
        """Of all objects of a bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]


class _Faulty:
    """Stands between the clients and moto."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.s3: S3 | None = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        assert self.s3 is not None
        request = _request(environ)
        fault = ""
        if request.key or request.kind == "list":  # not the making of a bucket
            self.s3.requests.append(request)
            fault = self.s3.fault(request)
        if fault in ("busy", "denied"):
            status, body = {"busy": ("503 Busy", BUSY), "denied": ("403 Denied", DENIED)}[fault]
            start_response(status, [("Content-Type", "application/xml")])
            return [body]
        if fault == "cut":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) // 2)
            return _hang_up(environ)
        if request.kind == "put" and not self.s3.knows_conditions:
            environ.pop("HTTP_IF_MATCH", None)
            environ.pop("HTTP_IF_NONE_MATCH", None)
        body = b"".join(self.app(environ, start_response))
        if fault == "lost":
            return _hang_up(environ)
        if request.kind == "list":
            for key in self.s3.hidden:
                pattern = rb"<Contents>\s*<Key>%s</Key>.*?</Contents>" % re.escape(key).encode()
                # As long as it was: the length is already said.
                body = re.sub(pattern, lambda m: b" " * len(m[0]), body, flags=re.DOTALL)
        return [body]


def _hang_up(environ: dict[str, Any]) -> Iterable[bytes]:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError


def _request(environ: dict[str, Any]) -> Request:
    _, _, key = environ["PATH_INFO"].lstrip("/").partition("/")
    query = environ["QUERY_STRING"]
    if "list-type=2" in query:
        found = re.search(r"(?:^|&)prefix=([^&]*)", query)
        return Request("list", found[1].replace("%2F", "/") if found else "")
    return Request(environ["REQUEST_METHOD"].lower(), key)


@contextmanager
def serving() -> Iterator[S3]:
    """A server of this process's own."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    faulty = _Faulty(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, faulty, threaded=True)
    faulty.s3 = S3(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield faulty.s3
    finally:
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3]:
    with serving() as found:
        yield found


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """The server as it should be, and a client in this process that finds it."""
    from samtune import s3 as client

    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    client._client.cache_clear()
    s3_server.fault, s3_server.hidden, s3_server.knows_conditions = no_fault, set(), True
    s3_server.requests.clear()
    yield s3_server
    client._client.cache_clear()
