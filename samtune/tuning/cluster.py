"""Ray on this machine or a cluster, and how many trials fit into it."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samtune.config.schema import ResourcesConfig
from samtune.errors import SamtuneError

AUTH_MODE, AUTH_TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"

# Read by Ray when it is imported or started; facts of Ray 2.60 that nothing else switches.
ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths stay what they were
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files per trial
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Ray's own snapshots: nothing here depends on them
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `signals` does that
    "TUNE_WARN_THRESHOLD_S": "5",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True)
class Slots:
    """How many trials fit into a cluster, and what each of them gets."""

    trials: int
    cpus: int
    gpus: float


def find_slots(nodes: Sequence[dict[str, Any]], wanted: ResourcesConfig) -> Slots:
    """How many trials run at once.

    Args:
        nodes: what `ray.nodes()` gives.

    Raises:
        SamtuneError: not even one trial fits on any node.
    """
    free = [node["Resources"] for node in nodes if node["Alive"]]
    most_cpus = int(max((node.get("CPU", 0) for node in free), default=0))
    most_gpus = max((node.get("GPU", 0.0) for node in free), default=0.0)
    gpus = (1.0 if most_gpus else 0.0) if wanted.gpus == "auto" else float(wanted.gpus)
    trials = 0
    for node in free:
        by_cpu = int(node.get("CPU", 0) // wanted.cpus)
        by_gpu = int(node.get("GPU", 0.0) / gpus + 1e-9) if gpus else by_cpu
        trials += min(by_cpu, by_gpu)
    if not trials:
        raise SamtuneError(
            f"study.resources asks for {wanted.cpus} CPUs and {gpus:g} GPUs a trial, but the "
            f"largest node has {most_cpus} CPUs and {most_gpus:g} GPUs. Ask for less, or name a "
            "cluster with --address."
        )
    return Slots(trials, wanted.cpus, gpus)


def usable_cpus() -> int:
    """The CPUs this process may use, which a batch system may have made fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray for the time of one session, quiet, on this machine or a cluster.

    Args:
        address: `HOST:PORT`, or `auto` for the cluster that `ray start` began on this machine; None
            is RAY_ADDRESS if that is set, else a Ray of the session's own.

    Raises:
        SamtuneError: there is no such cluster, or it refuses us.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.pop("RAY_TUNE_CALLBACKS", None)  # it would import and run whatever it names
    address = address or os.environ.get("RAY_ADDRESS")
    before = {name: os.environ.get(name) for name in (AUTH_MODE, AUTH_TOKEN)}
    import ray

    if ray.is_initialized():  # a program that brings its own Ray keeps it
        yield ray
        return
    _authenticate(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        options |= {"include_dashboard": False, "num_cpus": usable_cpus()}
    try:
        if address == "auto":
            address = _started_here()
        try:
            # "local", since without an address Ray would join a cluster it finds on this machine.
            ray.init(address=address or "local", **options)
        except (ray.exceptions.AuthenticationError, ConnectionError):  # it says either
            if not _can_show_a_token():
                raise
            ray.shutdown()
            ray.init(address=address, **options)
    except SamtuneError:
        raise
    except Exception as error:
        where = f"Ray cluster at {address}" if address else "local Ray"
        raise SamtuneError(
            f"{where} cannot be reached: {' '.join(str(error).split())[:300]} If the cluster asks "
            f"for a token, set {AUTH_MODE}=token, and {AUTH_TOKEN} unless ~/.ray/auth_token holds "
            "it."
        ) from error
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are the listener's to tell
    try:
        yield ray
    finally:
        ray.shutdown()
        for name, was in before.items():
            if was is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = was


def _authenticate(address: str | None) -> None:
    """Gives a Ray of our own a token of its own; a cluster that is given is asked without one.

    Ray would write the token to the home folder, and from then on clusters begun by `ray start`
    would ask for it; nor can it where that folder is read-only. A cluster without tokens cannot
    call back to a driver that asks for one, so one is shown to those alone that want it.
    """
    if AUTH_MODE not in os.environ and not address:
        os.environ.setdefault(AUTH_TOKEN, secrets.token_hex(32))
    _read_environment()


def _can_show_a_token() -> bool:
    """Whether there is a token, which is shown from now on."""
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if AUTH_MODE in os.environ or not (AUTH_TOKEN in os.environ or file.is_file()):
        return False
    os.environ[AUTH_MODE] = "token"
    _read_environment()
    return True


def _read_environment() -> None:
    """Ray reads it once in a process, and an earlier session may have had another."""
    from ray import _raylet

    raylet: Any = _raylet  # which has no types
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _started_here() -> str:
    """The address that `ray start` left on this machine.

    Ray's own `auto` also takes whatever cluster it finds among the processes: somebody else's
    private one, or that of another study.
    """
    from ray._private.utils import read_ray_address

    address = read_ray_address()
    if not address:
        raise SamtuneError(
            "--address auto: no Ray cluster was begun on this machine. Begin one with `ray start "
            "--head`, name one with --address HOST:6379, or leave --address out to use this "
            "machine alone."
        )
    return str(address)
