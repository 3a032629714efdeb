"""What an MLflow that does not do as asked means by it."""

from __future__ import annotations

from collections.abc import Iterator


def is_refusal(error: BaseException) -> bool:
    """Whether MLflow has understood and does not want it: a 4xx, which waiting does not mend."""
    return 400 <= _status(error) < 500 and _status(error) not in (408, 425, 429, 499)


def is_about_content(error: BaseException) -> bool:
    """Whether it is what was sent that MLflow refuses, and not the sender."""
    return _status(error) in (400, 409, 413, 422)


def is_unanswered(error: BaseException) -> bool:
    """Whether the same may well work later: no reply, a server or a database in trouble."""
    import requests
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    theirs = MlflowException | requests.RequestException | sqlalchemy.exc.SQLAlchemyError
    return isinstance(error, theirs) and not is_refusal(error)


def is_unreachable(error: BaseException) -> bool:
    """Whether nobody listens at the other end, so that trying on is of little use."""
    import socket

    return any(isinstance(e, ConnectionRefusedError | socket.gaierror) for e in _chain(error))


def words(error: BaseException) -> str:
    """The error as one line of bearable length."""
    from mlflow.exceptions import MlflowException

    text = " ".join(str(error).split()) or type(error).__name__
    named = text if isinstance(error, MlflowException) else f"{type(error).__name__}: {text}"
    return named[:300]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int:
    import requests
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        status: int = error.get_http_status_code()  # type: ignore[no-untyped-call]
        return status
    if isinstance(error, requests.HTTPError) and error.response is not None:  # an artifact's
        return int(error.response.status_code)
    return 0
