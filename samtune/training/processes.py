"""A trial in several processes: started, watched and ended together.

The process that asks for epochs (a Ray worker, say) is none of the ranks. It computes nothing and
waits in no collective, so that it always sees a rank raise or die, whatever the others are waiting
for, and ends them all. The first rank has the data, evaluates, and sends each epoch's result and
state here, where they are written down; the others have the weights alone.

All end with the process that has started them, however that ends.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from multiprocessing import connection as connections
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from typing import Any

import torch
import torch.distributed as dist

from samtune.config.trial import TrialConfig
from samtune.data import DataSplits
from samtune.errors import LostRankError
from samtune.registry import MODELS, code_to_give, take_given
from samtune.training.loop import EpochResult, train, train_epoch
from samtune.training.precision import Precision
from samtune.training.ranks import Ranks
from samtune.training.state import TrainingState, set_up, trial_task

HERE = "127.0.0.1"  # a trial's GPUs are those of one machine
# By the process that each is forked from, which has computed nothing; optimizers import the second.
PRELOADED = [__name__, "torch._dynamo"]
SETTLE_S = 1.0  # after which what a rank raises is not another one's death that it has noticed


def train_together(
    state: TrainingState,
    config: TrialConfig,
    data: DataSplits,
    device: torch.device,
    processes: int,
) -> Generator[EpochResult]:
    """Trains as `train` does, in so many processes; the results are the same up to rounding.

    Args:
        state: where to go on; after each epoch, where that has led.
        device: where the ranks compute; if it is a GPU, each on its own.

    Raises:
        LostRankError: one of the processes was killed.
        ValueError: there are not as many GPUs.
        Exception: what one of them has raised.
    """
    if processes == 1:
        yield from train(state, config, data, device)
        return
    if state.epoch >= config.training.epochs:
        return
    state.device = device
    devices = [device] * processes
    if device.type == "cuda":
        if (there := torch.cuda.device_count()) < processes:
            raise ValueError(
                f"study.resources.gpus is {processes}, and torch finds {there} here: does Ray "
                "count GPUs that are not there, or CUDA_VISIBLE_DEVICES hide some?"
            )
        devices = [torch.device("cuda", i) for i in range(processes)]
    with _started(state, config, data, devices) as ranks:
        while state.epoch < config.training.epochs:
            finished = _next_epoch(ranks)
            state.load_state_dict(_unpacked(finished.state))
            state.precision = finished.precision
            yield finished.result


@dataclass(frozen=True)
class _Job:
    """What each rank is told.

    Attributes:
        model_code, model_module: where the model is registered: code of no module, or a module.
        state: packed.
        port: where they find each other.
        threads: of each rank.
        start_method: of the processes that a rank reads images with. Left to itself it would start
            them as it was started, which takes seconds in every epoch.
    """

    config: TrialConfig
    data: DataSplits
    devices: list[torch.device]
    model_code: bytes
    model_module: str
    state: bytes
    port: int
    threads: int
    start_method: str


@dataclass(frozen=True)
class _Finished:
    """What the first rank tells of an epoch."""

    result: EpochResult
    state: bytes
    precision: Precision


@dataclass(frozen=True)
class _Rank:
    """A rank as its parent sees it."""

    number: int
    process: BaseProcess
    connection: Connection

    def end(self) -> None:
        """Ends it, with what it has started itself."""
        assert self.process.pid  # 0 would be this process's own group
        with contextlib.suppress(ProcessLookupError):  # it may not have come to lead one
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.connection.close()

    def lost(self) -> LostRankError:
        """That it is gone, and how."""
        self.process.join(SETTLE_S)
        code = self.process.exitcode
        how = f"was killed by signal {-code}" if code and code < 0 else f"ended with code {code}"
        return LostRankError(
            f"the process of rank {self.number} {how}, which the system does where memory is "
            "short. The training goes on after its last epoch"
        )


@contextlib.contextmanager
def _started(
    state: TrainingState, config: TrialConfig, data: DataSplits, devices: list[torch.device]
) -> Iterator[list[_Rank]]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    store = dist.TCPStore(HERE, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]  # its stub lacks it
    code = code_to_give([config.model.name], [])
    module = "" if code else MODELS[config.model.name].factory.__module__
    threads = max(1, torch.get_num_threads() // len(devices))
    rest = code, module, _packed(state), store.port, threads, multiprocessing.get_start_method()
    ranks: list[_Rank] = []

    def end() -> None:
        for rank in ranks:
            rank.end()

    atexit.register(end)  # before multiprocessing would wait for them to end by themselves
    try:
        for number in range(len(devices)):
            own = data.without_images() if number else data.to_share()
            job = _Job(config, own, devices, *rest)
            ours, theirs = context.Pipe()
            process = context.Process(target=_run, args=(number, job, theirs, _Output()))
            process.start()
            theirs.close()  # so that its end is the end of the connection
            ranks.append(_Rank(number, process, ours))
        yield ranks
    finally:
        end()
        atexit.unregister(end)


def _next_epoch(ranks: list[_Rank]) -> _Finished:
    """Lets the ranks train an epoch, and waits for what comes of it."""
    for rank in ranks:
        try:
            rank.connection.send(True)
        except OSError as error:
            raise rank.lost() from error
    told: dict[Any, _Rank] = {rank.connection: rank for rank in ranks}
    gone: dict[Any, _Rank] = {rank.process.sentinel: rank for rank in ranks}
    raised: list[Exception] = []
    while ready := connections.wait([*told, *gone], SETTLE_S if raised else None):
        for one in ready:
            if one in gone:
                raise gone[one].lost()
            try:
                said = told[one].connection.recv()
            except (EOFError, OSError) as error:
                raise told[one].lost() from error
            if isinstance(said, _Finished):
                return said
            raised.append(said)
    raise raised[0]


class _Output:
    """Where this process's output goes just now, for a process that is being started."""

    def __init__(self) -> None:
        self._descriptors: tuple[Any, ...] = ()

    def __getstate__(self) -> list[Any]:
        return [DupFd(number) for number in (1, 2)]

    def __setstate__(self, state: list[Any]) -> None:
        self._descriptors = tuple(state)

    def take(self) -> None:
        """Sends what this process prints there."""
        for number, given in zip((1, 2), self._descriptors, strict=True):
            descriptor = given.detach()
            os.dup2(descriptor, number)
            os.close(descriptor)


# --- in a rank's own process


def _run(number: int, job: _Job, connection: Connection, output: _Output) -> None:
    output.take()
    os.setpgid(0, 0)  # Ctrl-C is the parent's matter, and what is started here ends with this
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _compute(number, job, connection)
    except BaseException as error:  # noqa: BLE001 - foreign code: anything can come
        error.add_note(f"(raised in the process of rank {number})")
        traceback.print_exception(error)
        connection.send(_portable(error))
    threading.Event().wait()  # to be ended: the others must not take this one's end for a cause


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connections.wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)


def _compute(number: int, job: _Job, connection: Connection) -> None:
    torch.set_num_threads(job.threads)
    multiprocessing.set_start_method(job.start_method, force=True)
    if job.model_module:
        importlib.import_module(job.model_module)
    take_given(job.model_code)
    device, config, data = job.devices[number], job.config, job.data
    store = dist.TCPStore(HERE, job.port, is_master=False)  # type: ignore[attr-defined]  # its stub lacks it
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "nccl"
    dist.init_process_group(backend, store=store, rank=number, world_size=len(job.devices))
    state = set_up(config, data, device)
    state.load_state_dict(_unpacked(job.state))
    state.ranks = Ranks(number, len(job.devices), device)
    results = None if number else train(state, config, data, device)
    task = trial_task(config, data)
    while state.epoch < config.training.epochs:
        connection.recv()
        if results is None:
            train_epoch(state, task)
        else:
            result = next(results)
            connection.send(_Finished(result, _packed(state), state.precision))


def _portable(error: BaseException) -> Exception:
    """An exception that another process can read: itself, or what it says."""
    try:
        read = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - foreign code: anything can come
        read = None
    if isinstance(read, Exception) and type(read) is type(error):
        return read
    return RuntimeError(f"{type(error).__name__}: {error}")


def _packed(state: TrainingState) -> bytes:
    buffer = io.BytesIO()
    torch.save(state.state_dict(), buffer)
    return buffer.getvalue()


def _unpacked(state: bytes) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
    return loaded
