"""Ray on this machine or a cluster, and how many trials its nodes hold."""

from __future__ import annotations

import json
import logging
import os
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samtune.config.resources import ResourcesConfig
from samtune.errors import SamtuneError
from samtune.words import size

Node = Mapping[str, Any]  # as `ray.nodes()` gives it
ACCELERATOR = "accelerator_type:"
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it for a driver that is one of its jobs
MOST_DEMANDED = 1000
MOST_SHIPPED = 100 * 2**20
NOT_SHIPPED = (
    ".git",
    ".venv",
    "venv",
    "__pycache__",
    "samtune_studies",
    "mlruns",
    "mlartifacts",
    "mlflow.db*",
    "*.pt",
    "*.safetensors",
)
AUTH_MODE, AUTH_TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"

# Read by Ray when it is imported or started; facts of Ray 2.60 that nothing else switches.
ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths stay what they were
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files per trial
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Ray's own snapshots: nothing here depends on them
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # `Nodes` says how many may wait
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `signals` does that
    "TUNE_WARN_THRESHOLD_S": "5",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # What is started ahead is taken by no trial, and costs a core a second at every start.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}


@dataclass(frozen=True)
class Place:
    """What one trial occupies.

    Attributes:
        gpus: `auto` resolved; fractions share one.
        others: memory, a kind of GPU and custom resources, by Ray's names.
    """

    cpus: int
    gpus: float
    others: dict[str, float] = field(default_factory=dict)

    @property
    def bundle(self) -> dict[str, float]:
        """The same as Ray takes it."""
        return {"CPU": float(self.cpus), "GPU": self.gpus, **self.others}

    def fits(self, resources: Mapping[str, float]) -> int:
        """How many trials a node with these resources holds."""
        rooms = [int(resources.get("CPU", 0.0) // self.cpus)]
        if self.gpus:
            rooms.append(_trials_on_gpus(int(resources.get("GPU", 0.0)), self.gpus))
        rooms += [int(resources.get(name, 0.0) / need + 1e-9) for name, need in self.others.items()]
        return min(rooms)


def _trials_on_gpus(devices: int, each: float) -> int:
    """A fraction comes from one device, so that what is left on each holds no trial."""
    if each > 1:
        return int(devices // each)
    return devices * int(1 / round(each, 4) + 1e-9)  # Ray counts in ten thousandths


def place_of(wanted: ResourcesConfig, nodes: Sequence[Node]) -> Place:
    """What a trial occupies on these nodes; `gpus: auto` is one where any node has one."""
    has_gpus = any(node["Resources"].get("GPU") for node in nodes if node["Alive"])
    gpus = float(has_gpus) if wanted.gpus == "auto" else wanted.gpus
    others = dict(wanted.custom)
    if wanted.memory_bytes:
        others["memory"] = float(wanted.memory_bytes)
    if wanted.accelerator_type:
        others[ACCELERATOR + wanted.accelerator_type] = 0.001  # Ray's own way to ask for one
    return Place(wanted.cpus, gpus, others)


def too_small(place: Place, nodes: Sequence[Node]) -> str:
    """Why none of the nodes holds a trial, with the numbers."""
    there = [node["Resources"] for node in nodes if node["Alive"]]

    def most(name: str) -> float:
        return max((resources.get(name, 0.0) for resources in there), default=0.0)

    asked = [f"{place.cpus} CPUs", f"{place.gpus:g} GPUs"]
    largest = [f"{most('CPU'):g} CPUs", f"{most('GPU'):g} GPUs"]
    for name, need in place.others.items():
        kind = name.removeprefix(ACCELERATOR)
        if kind != name:
            kinds = {n.removeprefix(ACCELERATOR) for r in there for n in r if ACCELERATOR in n}
            asked.append(f"a GPU of type {kind}")
            largest.append(f"GPUs of type {', '.join(sorted(kinds)) or 'unknown'}")
        else:
            shown = size if name == "memory" else (lambda amount: f"{amount:g}")
            asked.append(f"{shown(need)} of {name}")
            largest.append(f"{shown(most(name))} of {name}")
    return (
        f"study.resources asks for {_listed(asked)} a trial, but the largest node has "
        f"{_listed(largest)}"
    )


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def usable_cpus() -> int:
    """The CPUs this process may use: a batch system or a container may leave it fewer than all."""
    from ray._private.utils import _get_docker_cpus

    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _get_docker_cpus()  # as Ray counts them on the other nodes
    return min(affinity or 1, max(1, int(quota))) if quota else affinity or 1


def check_address(address: str | None) -> None:
    """Refuses an address at which no study can be run.

    Raises:
        SamtuneError: it is one of Ray Client's, which leaves the driver outside of the cluster.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if address and address.startswith("ray://"):
        raise SamtuneError(
            f"{address}: a study is run on a node of the cluster, and not through Ray Client, "
            "whose connection must not break. On the head run `samtune ... "
            "--address auto`, or from here `ray job submit --address http://HEAD:8265 -- samtune "
            "... --address auto`."
        )


def is_given(address: str | None) -> bool:
    """Whether a cluster is named; else the session has a Ray of its own."""
    return bool(address or os.environ.get("RAY_ADDRESS"))


def ships_code(address: str | None) -> bool:
    """Whether the nodes of a cluster get the folder of plugins from the driver.

    They do not where the driver itself is a job of Ray's that brought a folder, which they have.
    """
    job = json.loads(os.environ.get(JOB_CONFIG, "{}"))
    return is_given(address) and not (job.get("runtime_env") or {}).get("working_dir")


def check_size(folder: Path) -> None:
    """Refuses to ship a folder that holds more than code.

    Raises:
        SamtuneError: it is too large; the message names its largest parts.
    """
    from ray._private.runtime_env import packaging

    sizes: Counter[str] = Counter()

    def count(path: Path) -> None:
        if path.is_file():
            sizes[path.relative_to(folder).parts[0]] += path.stat().st_size

    ignored = packaging._get_excludes(folder, list(NOT_SHIPPED))
    packaging._dir_travel(folder, [ignored], count, include_gitignore=True)
    if sizes.total() > MOST_SHIPPED:
        parts = ", ".join(f"{name} ({size(of)})" for name, of in sizes.most_common(3))
        raise SamtuneError(
            f"{folder} has the study's plugins and would be copied to every node, but it holds "
            f"{size(sizes.total())}, and {size(MOST_SHIPPED)} is the most: {parts}. List what the "
            f"plugins do not need in {folder / '.rayignore'}, as in a .gitignore, or move it."
        )


@contextmanager
def demanded(wanted: ResourcesConfig, trials: int) -> Iterator[None]:
    """Asks an autoscaler, if there is one, for nodes for so many trials while the body runs."""
    from ray.autoscaler.sdk import request_resources

    bundle = {k: v for k, v in place_of(wanted, []).bundle.items() if v}
    request_resources(bundles=[bundle] * min(trials, MOST_DEMANDED))
    try:
        yield
    finally:
        request_resources(bundles=[])


@contextmanager
def connected(address: str | None, shipped: Path | None = None) -> Iterator[Any]:
    """Ray for the time of one session, quiet, on this machine or a cluster.

    Args:
        address: `HOST:PORT`, or `auto` for the cluster that `ray start` began on this machine; None
            is RAY_ADDRESS if that is set, else a Ray of the session's own.
        shipped: a folder of code that every node of a cluster gets a copy of.

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
    if shipped:
        check_size(shipped)
        options["runtime_env"] = {"working_dir": str(shipped), "excludes": list(NOT_SHIPPED)}
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
        said = " ".join(str(error).split())[:300]
        if not address:
            raise SamtuneError(
                f"Ray cannot be started on this machine: {said} Where the machine is just too busy "
                "for the half minute that Ray gives itself, try again."
            ) from error
        raise SamtuneError(
            f"Ray cluster at {address} cannot be reached: {said} If the cluster asks for a token, "
            f"set {AUTH_MODE}=token, and {AUTH_TOKEN} unless ~/.ray/auth_token holds it."
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
