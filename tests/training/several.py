"""Trials that several processes compute: small models, and what each rank reaches with them.

Every rank imports this file, hence no pytest here.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from samtune.config.trial import TrialConfig
from samtune.data import DataSplits, Images
from samtune.registry import register_model
from samtune.training.loop import train, train_epoch
from samtune.training.processes import PRELOADED
from samtune.training.ranks import Ranks
from samtune.training.state import set_up, trial_task

CPU = torch.device("cpu")
MARK = 255  # the first pixel of the images that `nan_at_mark` cannot compute


@register_model("several_net")
def net(*, in_channels: int, num_classes: int, dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout),
        nn.Flatten(), nn.Linear(4 * 16, num_classes),
    )  # fmt: skip


@register_model("several_without_norm")
def without_norm(*, in_channels: int, num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, num_classes)
    )


@register_model("several_masks", task="segmentation")
def masks(*, in_channels: int, num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, num_classes, 1),
    )  # fmt: skip


@register_model("several_nan_at_mark")
class NanAtMark(nn.Module):
    """Fails to be finite on images that are marked."""

    def __init__(self, *, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.net = without_norm(in_channels=in_channels, num_classes=num_classes)

    def forward(self, images: Tensor) -> Tensor:
        marked = (images[:, :1, 0, 0] > 1.7) & self.training
        return self.net(images) * torch.where(marked, torch.nan, 1.0)


@register_model("several_counting")
class Counting(nn.Module):
    """Keeps something of its images that nobody adds up."""

    def __init__(self, *, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.net = without_norm(in_channels=in_channels, num_classes=num_classes)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.seen += images.sum()
        return self.net(images)


@register_model("several_disturbed")
class Disturbed(nn.Module):
    """Does something on one rank, or on each, at the n-th pass there."""

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        deed: str,
        rank: int | None = 1,
        at_pass: int = 3,
    ) -> None:
        super().__init__()
        self.net = without_norm(in_channels=in_channels, num_classes=num_classes)
        self.deed, self.rank, self.at_pass, self.passes = deed, rank, at_pass, 0

    def forward(self, images: Tensor) -> Tensor:
        is_rank = self.training and dist.is_initialized()
        if is_rank and self.rank in (None, dist.get_rank()):
            self.passes += 1
            if self.passes == self.at_pass:
                DEEDS[self.deed]()
        return self.net(images)


class OwnError(Exception):
    """Cannot be read by another process: it takes two arguments, and tells of one."""

    def __init__(self, what: str, _: int) -> None:
        super().__init__(what)


def _raise(error: Exception) -> None:
    raise error


def _raise_before_another_dies() -> None:
    if dist.get_rank() == 0:
        _raise(RuntimeError("connection closed by peer"))
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)


DEEDS = {
    "raise_before_another_dies": _raise_before_another_dies,
    "raise": lambda: _raise(ValueError("a depth is odd")),
    "raise_own": lambda: _raise(OwnError("a depth is odd", 1)),
    "run_out": lambda: _raise(torch.OutOfMemoryError("no memory on the GPU")),
    "wait": lambda: time.sleep(600),
    "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


def splits(*, of_masks: bool = False) -> DataSplits:
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> Images:
        pixels = torch.randint(0, MARK, (count, 6, 6, 1), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, 3, (count,), generator=generator)
        drawn = torch.randint(0, 3, (count, 6, 6), dtype=torch.uint8, generator=generator)
        return Images(pixels, drawn if of_masks else labels)

    train_part, val = part(64), part(20)
    if not of_masks:
        train_part.images[0, 0, 0] = MARK
    return DataSplits(
        task="segmentation" if of_masks else "classification",
        num_classes=3, train=train_part, val=val, open_test=lambda: val, mean=(0.5,), std=(0.29,),
    )  # fmt: skip


def trial(model: Any = "several_net", sam: Any = None, **training: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "model": {"name": model} if isinstance(model, str) else model,
            "dataset": {"name": "digits"},
            "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
            "sam": {"rho": 0.3, **(sam or {})},
            "training": {"epochs": 2, "batch_size": 16, "precision": "fp32", **training},
        }
    )


def data_of(config: TrialConfig) -> DataSplits:
    return splits(of_masks=config.model.name == "several_masks")


def reached(config: TrialConfig, ranks: Ranks) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """The metrics of every epoch that this rank tells, and its state after the last one."""
    data = data_of(config)
    state = set_up(config, data if ranks.rank == 0 else data.without_images(), CPU)
    state.ranks = ranks
    told: list[dict[str, float]] = []
    if ranks.rank == 0:
        told = [result.metrics for result in train(state, config, data, CPU)]
    while state.epoch < config.training.epochs:
        train_epoch(state, trial_task(config, data))
    return told, state.state_dict()


def in_ranks(configs: list[TrialConfig], size: int) -> list[list[Any]]:
    """What each rank reaches with each trial, or the text of what it raises."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    started = []
    for rank in range(size):
        ours, theirs = context.Pipe()
        args = (rank, size, store.port, configs, theirs)
        process = context.Process(target=_rank, args=args, daemon=True)
        process.start()
        theirs.close()
        started.append((process, ours))
    read = (io.BytesIO(connection.recv_bytes()) for _, connection in started)
    found: list[list[Any]] = [torch.load(one, weights_only=True) for one in read]
    for process, _ in started:
        process.join()
    return found


def _rank(
    rank: int, size: int, port: int, configs: list[TrialConfig], connection: Connection
) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    found: list[Any] = []
    for config in configs:
        try:
            found.append(reached(config, Ranks(rank, size, CPU)))
        except ValueError as error:
            found.append(str(error))
    buffer = io.BytesIO()
    torch.save(found, buffer)
    connection.send_bytes(buffer.getvalue())
    dist.barrier()
    dist.destroy_process_group()
