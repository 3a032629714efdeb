"""What of this machine samtune needs: installed, reachable and free."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from samtune.errors import SamtuneError
from samtune.words import size, some

NEEDED = ("torch", "torchvision", "numpy", "ray", "optuna", "mlflow")
EXTRAS = ("timm", "onnx")
TIMEOUT_S = 5.0
LITTLE_DISK = 1e9
LITTLE_MEMORY = 2e9


@dataclass(frozen=True)
class Check:
    """One thing, as it was found.

    Attributes:
        state: `wrong` if a study cannot run like this, `note` if it may be worth a look.
        remedy: what to do about it.
    """

    what: str
    found: str
    state: Literal["fine", "note", "wrong"] = "fine"
    remedy: str = ""


def look(storage: Path) -> Iterator[Check]:
    """Everything, one after another."""
    yield Check("python", platform.python_version())
    yield from (_package(name) for name in NEEDED)
    yield from (_extra(name) for name in EXTRAS)
    yield from _processors()
    yield _memory()
    yield _disk(storage)
    yield _ray()
    yield _mlflow()


def _package(name: str) -> Check:
    """Its version; one that is installed may still not load, as with libraries that are missing."""
    try:
        found = version(name)
        __import__(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a broken package raises
        again = f"{sys.executable} -m pip install --force-reinstall {name}"
        return Check(name, " ".join(str(error).split())[:300], "wrong", again)
    return Check(name, found)


def _extra(name: str) -> Check:
    wanted = [Requirement(line) for line in requires("samtune") or ()]
    packages = [r.name for r in wanted if r.marker and r.marker.evaluate({"extra": name})]
    missing = [package for package in packages if not _is_installed(package)]
    if missing:
        return Check(
            f"extra {name}",
            f"not installed ({some(missing)})",
            remedy=f"where you want it: pip install 'samtune[{name}]'",
        )
    return Check(f"extra {name}", "installed")


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _processors() -> Iterator[Check]:
    from samtune.tuning.cluster import usable_cpus

    yield Check("CPUs", f"{usable_cpus()} for trials")
    try:
        import torch

        from samtune.training.precision import resolve
    except ImportError:
        return  # which was said of the package
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        for i in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(i)
            name = torch.cuda.get_device_name(i)
            yield Check(f"GPU {i}", f"{name}, {size(free)} of {size(total)} free")
    elif shutil.which("nvidia-smi"):
        yield Check(
            "GPUs",
            f"none that torch {torch.__version__} can use, though nvidia-smi is here",
            "note",
            "install the torch for your CUDA: https://pytorch.org/get-started",
        )
    else:
        yield Check("GPUs", "none; trials train on CPUs")
    yield Check(
        "precision", f"auto is {resolve('auto', torch.device('cuda' if on_gpu else 'cpu'))}"
    )


def _memory() -> Check:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return Check("memory", "unknown on this system")
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    free = 1024 * int(kilobytes)
    if free < LITTLE_MEMORY:
        remedy = "close what else runs; Ray kills workers where memory is short"
        return Check("memory", f"{size(free)} free", "note", remedy)
    return Check("memory", f"{size(free)} free")


def _disk(storage: Path) -> Check:
    from samtune.preflight.study import free_space

    try:
        free = free_space(storage)
    except SamtuneError as error:
        return Check("disk", str(error), "wrong", "name a folder that can be written: --storage")
    if free < LITTLE_DISK:
        remedy = "`samtune gc NAME` and `samtune delete NAME` free some"
        return Check("disk", f"{size(free)} free at {storage}", "note", remedy)
    return Check("disk", f"{size(free)} free at {storage}")


def _ray() -> Check:
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        return Check("cluster", "none named; studies run on this machine")
    if address in ("auto", "local"):
        return Check("cluster", f"RAY_ADDRESS={address}")
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_S):
            return Check("cluster", f"{address} answers")
    except (OSError, ValueError) as error:
        found = f"RAY_ADDRESS={address} does not answer: {error}"
        remedy = "start it with `ray start --head`, or unset RAY_ADDRESS to use this machine"
        return Check("cluster", found, "wrong", remedy)


def _mlflow() -> Check:
    from samtune.tracking import Store, reach, tracking_uri

    try:
        store = Store(tracking_uri())
        reach(store)
    except SamtuneError as error:
        remedy = "studies run without it, and `samtune sync` sends their records later"
        return Check("MLflow", str(error), "note", remedy)
    return Check("MLflow", store.address)
