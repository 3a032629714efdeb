"""What a kind of task means: its loss, its metrics, and which way each metric improves.

A model is for one kind of task; a dataset has targets of one shape. `fits` says which go together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from samtune.errors import UnknownNameError
from samtune.tasks.base import Meter, Mode, Task
from samtune.tasks.capsule import Capsule
from samtune.tasks.classification import Classification
from samtune.tasks.segmentation import Segmentation

__all__ = ["Meter", "Mode", "Task", "build_task", "fits", "study_metrics"]

TARGETS = {
    "classification": "one class an image",
    "capsule": "one class an image",
    "segmentation": "one class a pixel",
}
CAPSULE_SETTINGS = ("margin_squared", "reconstruction_weight", "reconstruction_reduction")


def fits(model_task: str | None, dataset_task: str | None) -> bool:
    """Whether a model for one task can be trained on the targets of a dataset for another."""
    same = model_task == dataset_task
    return same or TARGETS.get(model_task or "", 1) == TARGETS.get(dataset_task or "", 2)


def build_task(
    name: str,
    *,
    num_classes: int | None = None,
    label_smoothing: float = 0.0,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    model_params: Mapping[str, Any] | None = None,
) -> Task:
    """The task of this name.

    Args:
        num_classes: None where it is not known yet; then the task can only be asked for `metrics`.
        mean, std: what the dataset normalises by.
        model_params: the model's settings; those of the capsules' loss are among them.

    Raises:
        ValueError: the task has no use for label smoothing.
    """
    match name:
        case "classification":
            return Classification(num_classes, label_smoothing)
        case "segmentation":
            return Segmentation(num_classes, label_smoothing)
        case "capsule":
            if label_smoothing:
                raise ValueError(
                    f"training.label_smoothing must be 0 for capsules, got {label_smoothing}: "
                    "their margins say already how sure is sure enough"
                )
            params = model_params or {}
            settings = {key: params[key] for key in CAPSULE_SETTINGS if key in params}
            return Capsule(num_classes, mean, std, **settings)
    raise UnknownNameError("task", name, TARGETS)


def study_metrics(task: str, num_classes: int | None = None) -> dict[str, Mode]:
    """What a study of this task can be judged by, with the mode that follows.

    Args:
        num_classes: None where it is not known yet: then all there may be.
    """
    metrics = build_task(task, num_classes=num_classes).metrics
    return {f"val_{name}": mode for name, mode in metrics.items()}
