"""Where MLflow keeps a study's records, and what its client is told."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from samtune.errors import SamtuneError
from samtune.files import parse_json, write_json
from samtune.secrets import HIDDEN, without_password
from samtune.tracking.redaction import masked

SQLITE = "sqlite:///"

# Defaults: what the user's environment says comes first.
CLIENT_ENVIRONMENT = {
    # A dead server would otherwise hold a call for four minutes; `process` tries again by itself.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, or the store that a plain `mlflow ui` in this folder opens.

    Raises:
        SamtuneError: that variable holds no address.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    try:
        urlsplit(uri)
    except ValueError as error:
        raise SamtuneError(f"MLFLOW_TRACKING_URI is no address: {error}") from None
    if uri.startswith(SQLITE) and uri != SQLITE:
        return f"{SQLITE}{Path(uri.removeprefix(SQLITE)).absolute()}"
    return uri


@dataclass(frozen=True)
class Store:
    """Where a study's records go.

    Attributes:
        uri: for MLflow's client; it may hold a password.
        before: where they went so far, if that is another place; fit for a screen.
    """

    uri: str
    before: str = ""

    @property
    def address(self) -> str:
        """The same place, fit for a screen or a log."""
        return without_password(self.uri)

    @property
    def change(self) -> str:
        """What to tell the user where the store is not the one before."""
        if not self.before:
            return ""
        return (
            f"MLflow: this study was recorded at {self.before}; MLFLOW_TRACKING_URI asks for "
            f"{self.address}, so all of it goes there"
        )


def store_of(root: Path) -> Store:
    """Where the study in this folder is recorded, wherever one stands.

    MLFLOW_TRACKING_URI comes first, then the store that has taken the study's first record, then
    the working directory's.

    Raises:
        SamtuneError: the address that the study remembers needs its password.
    """
    remembered = _remembered(root)
    if not remembered or os.environ.get("MLFLOW_TRACKING_URI"):
        uri = tracking_uri()
        return Store(uri, remembered if remembered != without_password(uri) else "")
    if HIDDEN in remembered:
        raise SamtuneError(
            f"study {root.name!r} is recorded at {remembered}: set MLFLOW_TRACKING_URI to that "
            "address with its password, which samtune does not write down"
        )
    return Store(remembered)


def is_recorded(root: Path) -> bool:
    """Whether an MLflow has taken something of the study in this folder."""
    return bool(_remembered(root))


def reach(store: Store) -> None:
    """Asks MLflow for one experiment; a database that is not there yet is not made.

    Raises:
        SamtuneError: it does not answer, or its folder cannot be written.
    """
    path = Path(store.uri.removeprefix(SQLITE))
    if store.uri.startswith(SQLITE) and not path.exists():
        if not os.access(path.parent, os.W_OK):
            raise SamtuneError(f"{store.address} cannot be made: {path.parent} cannot be written")
        return
    use_client_environment()
    from mlflow import MlflowClient

    try:
        MlflowClient(store.uri).search_experiments(max_results=1)
    except Exception as error:  # whatever MLflow's client raises
        reason = masked(" ".join(str(error).split())[:300], [store.uri])
        raise SamtuneError(f"MLflow at {store.address} cannot be reached: {reason}") from error


def remember(root: Path, address: str) -> None:
    """Writes down where the study is recorded: an address without its password."""
    if _read(root / "mlflow.json", "store") != address:
        write_json(root / "mlflow.json", {"store": address})


def use_client_environment() -> None:
    """Makes our defaults MLflow's, in this process."""
    for name, value in CLIENT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _remembered(root: Path) -> str:
    # Where one is gone or damaged, the other says the same.
    return _read(root / "mlflow.json", "store") or _read(root / "tracking.json", "uri")


def _read(path: Path, key: str) -> str:
    try:
        found = parse_json(path.read_bytes(), dict).get(key)
    except (OSError, ValueError):
        return ""
    return found if isinstance(found, str) else ""
