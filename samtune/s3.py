"""A bucket of S3, or of whatever else speaks its protocol: whole objects, put on a condition.

A put says what it takes to be there. Where somebody else has put something meanwhile, it changes
nothing, so that of two writers who know the same one comes first, and the other learns of it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from typing import Any, NamedTuple

from samtune.errors import SamtuneError

CONNECT_S, READ_S, TRIES = 5, 30, 3
CONNECTIONS = 16
LARGE = 64 * 2**20  # goes in parts of this size; S3 takes 5 GiB at once
GONE = ("NoSuchKey", "404")
REFUSED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409", *GONE)
UNCHANGED = ("304", "NotModified")


class ChangedError(OSError):
    """Somebody else has put another object there meanwhile; nothing was changed."""


@dataclass(frozen=True)
class Found:
    """An object.

    Attributes:
        tag: the store's name of just this content (ETag).
    """

    content: bytes
    tag: str


class Listed(NamedTuple):
    """What a listing says of an object: its tag and its bytes."""

    tag: str
    size: int


class Bucket:
    """One bucket. Credentials and endpoint come from where boto3 looks for them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get(self, key: str, unless: str = "") -> Found | None:
        """An object; None if there is none.

        Args:
            unless: the tag of one that is known; then it comes back without its content.

        Raises:
            OSError: the store cannot be asked.
        """
        condition = {"IfNoneMatch": unless} if unless else {}
        try:
            with self._naming(key):
                reply = _client().get_object(Bucket=self.name, Key=key, **condition)
                return Found(reply["Body"].read(), reply["ETag"])
        except _AnsweredError as error:
            if error.code in UNCHANGED:
                return Found(b"", unless)
            if error.code in GONE:
                return None
            raise

    def put(self, key: str, content: bytes, replaces: str = "") -> str:
        """Puts an object, and returns its tag once the store has it for good.

        Args:
            replaces: the tag of what is there; empty if nothing is.

        Raises:
            ChangedError: something else is there.
            OSError: it cannot be put, or nobody knows whether it was.
        """
        if len(content) >= LARGE:
            return self._put_in_parts(key, content)
        condition = {"IfMatch": replaces} if replaces else {"IfNoneMatch": "*"}
        try:
            with self._naming(key):
                reply = _client().put_object(Bucket=self.name, Key=key, Body=content, **condition)
                return str(reply["ETag"])
        except _AnsweredError as error:
            if error.code not in REFUSED:
                raise
        # The store may have taken it, and its reply was lost on the way.
        found = self.get(key)
        if found is not None and found.content == content:
            return found.tag
        message = "was changed by somebody else meanwhile"
        raise ChangedError(errno.ESTALE, message, self.address(key))

    def _put_in_parts(self, key: str, content: bytes) -> str:
        """Without a condition: only files of one attempt's own name are that large."""
        from boto3.s3.transfer import TransferConfig

        parts = TransferConfig(multipart_threshold=LARGE, multipart_chunksize=LARGE)
        with self._naming(key):
            _client().upload_fileobj(io.BytesIO(content), self.name, key, Config=parts)
            return str(_client().head_object(Bucket=self.name, Key=key)["ETag"])

    def delete(self, key: str) -> None:
        """Removes an object, there or not."""
        with self._naming(key):
            _client().delete_object(Bucket=self.name, Key=key)

    def listed(self, prefix: str) -> dict[str, Listed]:
        """All objects whose keys begin so; the newest names may be missing."""
        found = self._pages(prefix, "Contents")
        return {item["Key"]: Listed(item["ETag"], item["Size"]) for item in found}

    def folders(self, prefix: str) -> list[str]:
        """The names between this prefix and the next slash."""
        found = self._pages(prefix, "CommonPrefixes", Delimiter="/")
        return [item["Prefix"].removeprefix(prefix).rstrip("/") for item in found]

    def _pages(self, prefix: str, part: str, **options: str) -> list[dict[str, Any]]:
        with self._naming(prefix):
            paginator = _client().get_paginator("list_objects_v2")
            pages = paginator.paginate(Bucket=self.name, Prefix=prefix, **options)
            return [item for page in pages for item in page.get(part, ())]

    def age_s(self, key: str) -> float | None:
        """How long ago an object was put, by the store's clock alone; None if there is none."""
        try:
            with self._naming(key):
                reply = _client().head_object(Bucket=self.name, Key=key)
        except _AnsweredError as error:
            if error.code in GONE:
                return None
            raise
        now = parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"])
        return float((now - reply["LastModified"]).total_seconds())

    def address(self, key: str) -> str:
        """As people write it."""
        return f"s3://{self.name}/{key}"

    @contextlib.contextmanager
    def _naming(self, key: str) -> Iterator[None]:
        """Makes an `OSError` that names the object of whatever boto3 raises."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

        where = self.address(key)
        try:
            yield
        except ClientError as error:
            told = error.response.get("Error", {})
            code = str(told.get("Code", ""))
            message = f"{code}: {told.get('Message', '')}".strip(": ")
            raise _AnsweredError(code, message or str(error), where) from error
        except (BotoCoreError, HTTPClientError, Boto3Error) as error:
            raise OSError(errno.EIO, " ".join(str(error).split()), where) from error


class _AnsweredError(OSError):
    """The store has answered that it does not do what it was asked for."""

    def __init__(self, code: str, message: str, where: str) -> None:
        super().__init__(errno.EIO, message, where)
        self.code = code


def check_installed() -> None:
    """Raises `SamtuneError` where the package that speaks to S3 is not there."""
    if find_spec("boto3") is None:
        raise SamtuneError("s3:// addresses need boto3: pip install 'samtune[s3]'")


@functools.lru_cache(maxsize=1)
def _client() -> Any:
    import boto3
    from botocore.config import Config

    # Servers other than Amazon's seldom have a host name for each bucket.
    has_own = {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} & os.environ.keys()
    return boto3.session.Session().client(
        "s3",
        config=Config(
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            retries={"mode": "standard", "total_max_attempts": TRIES},
            max_pool_connections=CONNECTIONS,
            s3={"addressing_style": "path" if has_own else "auto"},
        ),
    )
