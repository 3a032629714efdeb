"""What an exported model says of itself, alike in every format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from samtune.analysis import answer
from samtune.errors import SamtuneError
from samtune.files import parse_json
from samtune.study.study import Study
from samtune.study.weights import TrainedModel
from samtune.tasks import Task, build_task

KEY = "samtune"
"""Under which a format that has a place for remarks keeps it, as JSON."""
TAKES = (
    "float32 (B, channels, height, width), pixels from 0 to 1, as they are: the model normalises"
)


@dataclass(frozen=True)
class ImageInput:
    """The images that a model takes.

    Attributes:
        mean, std: per channel, of pixels in [0, 1]: what the model itself normalises by.
        takes: the same for people who open the file.
    """

    channels: int
    height: int
    width: int
    mean: list[float]
    std: list[float]
    takes: str = TAKES

    def __post_init__(self) -> None:
        if not self.channels == len(self.mean) == len(self.std):
            raise ValueError("mean and std are not those of its channels")
        if not all(value > 0 for value in self.std):
            raise ValueError("std must be above 0")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width

    @property
    def in_words(self) -> str:
        """`8x8 grey`."""
        color = {1: "grey", 3: "RGB"}.get(self.channels, f"{self.channels} channels")
        return f"{self.height}x{self.width} {color}"


@dataclass(frozen=True)
class About:
    """Where a model comes from, and what goes in and comes out.

    Attributes:
        metric: the study's.
        metrics: those of the epoch, as recorded on the validation split.
        model: the arguments of `samtune.models.build_model`.
        task: what its outputs mean.
        classes: their names in order; empty where the data set knows none.
        config: the trial's settings.
        recommendation: what the study says of rho, where it searched rho.
    """

    study: str
    trial: str
    epoch: int
    metric: str
    metrics: dict[str, float]
    model: dict[str, Any]
    task: str
    input: ImageInput
    classes: list[str]
    config: dict[str, Any]
    recommendation: dict[str, Any] | None = None

    @property
    def num_classes(self) -> int:
        """Length of the output for one image, or one pixel."""
        return int(self.model["num_classes"])

    def build_task(self) -> Task:
        """What reads the model's scores."""
        return build_task(self.task, num_classes=self.num_classes)

    def class_name(self, number: int) -> str:
        """A class in words, or its number."""
        return self.classes[number] if self.classes else str(number)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, which JSON knows."""
        return asdict(self)

    def as_json(self) -> str:
        """One line."""
        return json.dumps(self.as_dict())


def about(study: str, metric: str, trained: TrainedModel) -> About:
    """What is to be said of a trained model of this study, which goes by this metric."""
    data = trained.data
    height, width = data.image_size
    return About(
        study=study,
        trial=trained.trial,
        epoch=trained.epoch,
        metric=metric,
        metrics=trained.metrics,
        model=trained.recipe,
        task=trained.task,
        input=ImageInput(data.in_channels, height, width, [*data.mean], [*data.std]),
        classes=[*data.classes],
        config=trained.config.model_dump(mode="json"),
    )


def recommendation(study: Study) -> dict[str, Any] | None:
    """What a study says of rho, where it searched rho."""
    found = answer(study).response
    if found is None:
        return None
    return {
        "rho": found.rho,
        "plateau": list(found.band.plateau) if found.band else None,
        "settings": found.band.settings if found.band else None,
        "sentence": found.sentence,
    }


def parse_about(path: Path, found: Any) -> About:
    """What a file says.

    Args:
        found: plain values, as `About.as_dict` gave them.

    Raises:
        SamtuneError: it says something else, or an earlier samtune has written it.
    """
    recipe = found.get("model") if isinstance(found, Mapping) else None
    if not isinstance(recipe, Mapping):
        raise SamtuneError(f"{path} is no file of `samtune export`: it does not name its model")
    if "input" not in found:
        raise SamtuneError(
            f"{path} does not say what its images are normalised by: samtune did not write that "
            "down before, and such a model is wrong on ordinary images. Export it again with "
            "`samtune export`."
        )
    try:
        return parse_json(json.dumps(dict(found)).encode(), About)
    except (ValueError, TypeError, RecursionError) as error:
        raise SamtuneError(
            f"{path} is no file of `samtune export`, or is damaged: {error}"
        ) from error
