"""samtune: which rho makes Sharpness-Aware Minimization pay off, and by how much.

The map, in the order worth reading:

- `samtune.sam`: the method, an optimizer around any `torch.optim` class.
- `samtune.models`, `samtune.data`, `samtune.tasks`: what is trained, on what, for what.
- `samtune.config`: what a study file may say.
- `samtune.training`: the loop, a generator of epochs.
- `samtune.study`: the folder that holds a study and survives anything.
- `samtune.analysis`: what its trials say: the recommended rho, and what
  speaks against an answer; what repeated runs allow one to say.
- `samtune.tuning`: how Ray Tune and Optuna drive the loop.
- `samtune.tracking`, `samtune.export`: MLflow, and the best model to take home.
- `samtune.report`: a study as one page.
- `samtune.cli`, `samtune.api`: the two ways in, from a terminal and from Python.

Importing samtune is fast: torch and ray are loaded by the name that needs them, on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samtune.api import open_study, resume_study, run_study
    from samtune.registry import register_dataset, register_model
    from samtune.sam import SAM

__version__ = "0.1.0"
__all__ = [
    "SAM",
    "open_study",
    "register_dataset",
    "register_model",
    "resume_study",
    "run_study",
]

_HOME = {
    "SAM": "samtune.sam",
    "open_study": "samtune.api",
    "register_dataset": "samtune.registry",
    "register_model": "samtune.registry",
    "resume_study": "samtune.api",
    "run_study": "samtune.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'samtune' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
