"""What data a study's trials have seen: `data/KEY.json`, one for each data set among them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from samtune.config.trial import TrialConfig
from samtune.files import read_json, write_json
from samtune.working_copy import at_hand

if TYPE_CHECKING:
    from samtune.data import DataSplits


@dataclass(frozen=True)
class SplitFacts:
    """One split.

    Attributes:
        digest: see `samtune.data.facts.digest_of`.
        shape: height, width and channels of an image.
        per_class: how many images each class has; empty where masks are the targets.
    """

    digest: str
    images: int
    shape: list[int]
    has_masks: bool
    per_class: list[int]


@dataclass(frozen=True)
class UsedData:
    """A data set as trials have seen it, beyond what their settings say of it."""

    train: SplitFacts
    val: SplitFacts


def note_data(study: Path, config: TrialConfig, data: DataSplits) -> None:
    """Writes down what a trial with these settings sees, unless another one has.

    Args:
        study: the study's folder.
        data: with the validation images among the training images, if they are to be.
    """
    from samtune.data.facts import digest_of, has_masks, images_per_class

    path = _path(study, config)
    if at_hand(path).exists():
        return
    train, val = (
        SplitFacts(
            digest_of(split),
            len(split),
            [*split.size, split.channels],
            has_masks(split),
            images_per_class(split, data.num_classes),
        )
        for split in (data.train, data.val)
    )
    path.parent.mkdir(exist_ok=True)
    write_json(path, asdict(UsedData(train, val)))


def used_data(study: Path, config: TrialConfig) -> UsedData | None:
    """What a trial with these settings has seen; None where it has not been written down.

    Raises:
        DamagedFileError: the file was changed since.
    """
    return read_json(at_hand(_path(study, config)), UsedData)


def _path(study: Path, config: TrialConfig) -> Path:
    settings = [config.dataset.name, config.dataset.params, config.training.with_validation]
    text = json.dumps(settings, sort_keys=True, default=str)
    return study / "data" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
