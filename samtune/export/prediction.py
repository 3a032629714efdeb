"""What an exported model says of single images: classes with probabilities, or masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from samtune.data.streaming import image_size
from samtune.errors import SamtuneError
from samtune.export.base import ExportedModel
from samtune.export.evaluation import BATCH, image_files


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image.

    Attributes:
        probabilities: by class, the highest first. For masks they are the shares of the pixels.
        mask: the file that the mask was written to.
    """

    image: Path
    probabilities: dict[str, float]
    mask: Path | None = None


def predict(
    model: ExportedModel,
    images: Sequence[Path],
    *,
    masks: Path | None = None,
    overwrite: bool = False,
) -> Iterator[Prediction]:
    """What the model says of image files, which are resized to its size and read in its colours.

    Args:
        masks: the folder to write masks to, as `NAME_mask.png` of each image's own size: the
            number of its class in each pixel, or 255 where foreground is the only class.
        overwrite: whether masks that are there are replaced.

    Raises:
        SamtuneError: an image cannot be read, or a mask is there already.
    """
    paths = list(images)
    targets = {}
    if model.about.task == "segmentation":
        targets = _mask_files(paths, masks or Path(), overwrite)
    files = image_files(model.about, paths, labels=[0] * len(paths))
    task = model.about.build_task()
    for start in range(0, len(paths), BATCH):
        chosen = range(start, min(start + BATCH, len(paths)))
        pixels = files.read(chosen)[0].permute(0, 3, 1, 2)
        with torch.no_grad():
            scores = model(pixels)
        for i, one in zip(chosen, scores, strict=True):
            if targets:
                yield _masked(model, paths[i], task.predict(one[None])[0], targets[paths[i]])
            else:
                yield _named(model, paths[i], task.probabilities(one[None])[0])


def _named(model: ExportedModel, path: Path, probabilities: Tensor) -> Prediction:
    values, classes = probabilities.sort(descending=True)
    pairs = zip(classes.tolist(), values.tolist(), strict=True)
    return Prediction(path, {model.about.class_name(number): value for number, value in pairs})


def _masked(model: ExportedModel, path: Path, mask: Tensor, target: Path) -> Prediction:
    about = model.about
    names = about.classes or [str(number) for number in range(about.num_classes)]
    if about.num_classes == 1:
        names = ["background", names[0] if about.classes else "foreground"]
    shares = torch.bincount(mask.flatten(), minlength=len(names)) / mask.numel()
    # What lies outside of a smaller output is background, or class 0.
    canvas = torch.zeros(about.input.size, dtype=torch.uint8)
    top, left = ((a - b) // 2 for a, b in zip(canvas.shape, mask.shape, strict=True))
    step = 255 if about.num_classes == 1 else 1
    canvas[top : top + mask.shape[0], left : left + mask.shape[1]] = (mask * step).to(torch.uint8)
    full = Image.fromarray(canvas.numpy()).resize(image_size(path), Image.Resampling.NEAREST)
    full.save(target)
    pairs = sorted(zip(names, shares.tolist(), strict=True), key=lambda pair: -pair[1])
    return Prediction(path, dict(pairs), target)


def _mask_files(images: Sequence[Path], folder: Path, overwrite: bool) -> dict[Path, Path]:
    if not folder.is_dir():
        raise SamtuneError(f"{folder} is no folder: masks go into one that exists")
    targets = {path: folder / f"{path.stem}_mask.png" for path in images}
    if len(set(targets.values())) < len(targets):
        raise SamtuneError("two images have the same name, and so would their masks: name one")
    for target in targets.values():
        if target.exists() and not overwrite:
            raise SamtuneError(f"{target} exists; add --force to replace it")
    return targets
