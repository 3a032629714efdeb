"""Timing for the benchmarks: interleaved repetitions, medians with quartiles, ratios, JSON.

Cases take turns in a new order each round, so that what disturbs the machine disturbs them all
alike; a ratio is the median over rounds of the ratio within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from samtune.training.amx import has_amx

RESULTS = Path(__file__).parent / "results"


def options(description: str, *, rounds: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="repetitions of every case")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--processor-time",
        action=_CountProcessorTime,
        nargs=0,
        help="count this process's processor time, not the clock's: for a busy machine",
    )
    parser.add_argument("--json", type=Path, help="where the figures go")
    return parser


class _CountProcessorTime(argparse.Action):
    def __call__(self, *_: Any) -> None:
        global _now
        _now = time.process_time


_now = time.perf_counter


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def now() -> float:
    """Seconds of the clock, or of this process's processor time if those are asked for."""
    return _now()


def seconds(work: Callable[[], Any]) -> float:
    """How long `work` takes, a GPU's part included."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    started = now()
    work()
    wait()
    return now() - started


def interleave(
    cases: Mapping[str, Callable[[], Any]], rounds: int, *, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of every case in every round."""
    return interleave_timed(
        {name: (lambda work=work: seconds(work)) for name, work in cases.items()},
        rounds,
        warm_up=warm_up,
    )


def interleave_timed(
    cases: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: int = 1
) -> dict[str, list[float]]:
    """The same for cases that time themselves."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    order = random.Random(0)
    for i in range(warm_up + rounds):
        for name in order.sample(list(cases), len(cases)):
            taken = cases[name]()
            if i >= warm_up:
                times[name].append(taken)
    return times


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def compare(
    title: str, times: Mapping[str, Sequence[float]], base: str, *, unit: float = 1e-3
) -> dict[str, Any]:
    """Prints a table of times and of ratios to `base`; returns its figures."""
    print(f"\n{title}")
    print(f"| case | {'ms' if unit == 1e-3 else 's'} | ratio to {base} [quartiles] |")
    print("|---|---|---|")
    figures = {}
    for name, taken in times.items():
        ratios = [one / other for one, other in zip(taken, times[base], strict=True)]
        low, middle, high = quartiles(ratios)
        print(
            f"| {name} | {statistics.median(taken) / unit:.1f} "
            f"| {middle:.3f} [{low:.3f}, {high:.3f}] |"
        )
        figures[name] = {"seconds": quartiles(taken), "ratio": (low, middle, high)}
    return {"base": base, "rounds": len(times[base]), "cases": figures}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    about: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "time": "wall clock" if _now is time.perf_counter else "processor time",
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "amx": has_amx(),
        "torch": torch.__version__,
        "load_at_the_end": round(os.getloadavg()[0], 1),
    }
    if torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name()
    return about


def save(name: str, figures: Mapping[str, Any], path: Path | None) -> None:
    """Writes the figures with the machine they were measured on."""
    path = path or RESULTS / f"{name}-{default_device().type}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n")
    print(f"\n{machine()}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
