"""What is known of a study beside its settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from samtune.study.driver import Driver

SCHEMA = 2
CONFIRM_FILE = "confirm.json"  # what a confirmation has found
REPORT_FILE = "report.html"  # what `samtune report` writes


@dataclass(frozen=True)
class Reading:
    """One reading of the test split of the data set that a study searched on.

    Attributes:
        by: who and where, as `user@machine`.
        at: when, in UTC, as ISO 8601 has it.
        confirmation, confirmation_id: the confirmation that it was for.
        done: whether its numbers were written down; a reading that was killed is taken up again.
    """

    by: str
    at: str
    confirmation: str
    confirmation_id: str
    done: bool


@dataclass(frozen=True)
class Renaming:
    """A change of name that has begun, and is not done with all that holds the name."""

    old: str
    new: str


@dataclass(frozen=True)
class Manifest:
    """What is known of a study beside its settings.

    Attributes:
        study_id: which study it is; a name may be given again to another.
        session: the number of the last one.
        driver: who runs the study, or left it without saying goodbye.
        versions: what it was begun with.
        test_readings: when the test split was read to judge what this study found.
        archived: whether `list` leaves it out, and no driver may run it.
        renaming: what `renaming` has to finish.
    """

    schema: int
    study_id: str
    session: Annotated[int, Field(ge=0)]
    driver: Driver | None
    versions: dict[str, str]
    test_readings: list[Reading] = field(default_factory=list)
    archived: bool = False
    renaming: Renaming | None = None


@dataclass(frozen=True)
class _Schema:
    """What the manifests of all versions have."""

    schema: int


def other_versions(begun_with: dict[str, str]) -> str:
    """A sentence for a study that was begun with other versions than these; else nothing."""
    now = installed_versions()
    others = [
        f"{name} {version} (now {now.get(name, 'not installed')})"
        for name, version in begun_with.items()
        if now.get(name) != version
    ]
    if not others:
        return ""
    return f"begun with {', '.join(others)}: numbers may differ from those of earlier trials"


def installed_versions() -> dict[str, str]:
    """The versions a result depends on."""
    import platform
    from importlib.metadata import version

    packages = ("samtune", "torch", "torchvision", "numpy", "ray", "optuna", "mlflow")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
