"""samtune's names and values as MLflow takes them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from samtune.study.journal import Entry
from samtune.study.study import Trial
from samtune.tracking.redaction import redacted
from samtune.words import short_names

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param

LONGEST_NAME = 250  # the server's own limits
LONGEST_PARAM = 6000
LONGEST_TAG = 8000
LONGEST_RUN_NAME = 120  # of a column that one can still read


def params(settings: dict[str, Any]) -> list[Param]:
    """Nested settings as parameters with dotted names, without what looks secret.

    A value that MLflow would cut says so itself; `study.yaml` beside it has all of it.
    """
    from mlflow.entities import Param

    return [
        Param(name, _cut(str(redacted(value, name))))
        for name, value in with_safe_names(flat(settings)).items()
    ]


def points(entries: Iterable[Entry]) -> list[Metric]:
    """What the journal has of these epochs, each with the time that it ended."""
    from mlflow.entities import Metric

    return [
        Metric(name, value, entry.time_ms, entry.epoch)
        for entry in entries
        for name, value in with_safe_names(
            {**entry.metrics, "time_per_epoch_s": entry.duration_s}
        ).items()
    ]


def with_safe_names(values: dict[str, Any]) -> dict[str, Any]:
    """The same values under names that MLflow takes; no two of them become one."""
    named: dict[str, Any] = {}
    for name in sorted(values, key=lambda name: (_safe(name) != name, name)):
        safe, number = _safe(name), 2
        while safe in named:
            safe, number = f"{_safe(name)[: LONGEST_NAME - 5]}_{number}", number + 1
        named[safe] = values[name]
    return named


def tag(text: str) -> str:
    """A tag's value that MLflow takes."""
    return text[:LONGEST_TAG]


def run_name(trial: Trial) -> str:
    """The trial and what it varies: `t0019 rho=0.47 width_factor=2`."""
    said = "baseline" if trial.is_baseline else in_short(trial.values)
    return f"{trial.key} {said}".strip()[:LONGEST_RUN_NAME]


def in_short(values: Mapping[str, Any]) -> str:
    """Settings as `rho=0.47 width_factor=2`, without what looks secret."""
    names = short_names(values)
    return " ".join(
        f"{names[path]}={value:.3g}" if isinstance(value, float) else f"{names[path]}={value}"
        for path, value in ((path, redacted(value, path)) for path, value in values.items())
    )


def started_ms(trial: Trial) -> int:
    """When the trial began: its first epoch's beginning, or when it was handed out."""
    handed_out = _changed_ms(trial, "trial.json")
    if not trial.epochs:
        return handed_out
    first = trial.epochs[0]
    return min(handed_out or first.time_ms, first.time_ms - round(1000 * first.duration_s))


def ended_ms(trial: Trial) -> int:
    """When its last epoch ended, or, without any, when its outcome was written."""
    if trial.last_epoch:
        return trial.last_epoch.time_ms
    return _changed_ms(trial, "outcome.json") or _changed_ms(trial, "trial.json")


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted paths."""
    found: dict[str, Any] = {}
    for key, item in settings.items():
        if isinstance(item, dict):
            found |= flat(item, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = item
    return found


def _safe(name: str) -> str:
    allowed = re.sub(r"[^\w.\- :/]", "_", name)[:LONGEST_NAME]
    # MLflow takes a name for a path.
    return (
        allowed
        if posixpath.normpath(allowed) == allowed and allowed[0] not in "./"
        else (re.sub(r"[./]", "_", allowed) or "_")
    )


def _cut(value: str) -> str:
    if len(value) <= LONGEST_PARAM:
        return value
    note = f"... ({len(value)} characters, whole in study.yaml)"
    return value[: LONGEST_PARAM - len(note)] + note


def _changed_ms(trial: Trial, name: str) -> int:
    try:
        return (trial.folder.root / name).stat().st_mtime_ns // 1_000_000
    except FileNotFoundError:
        return 0
