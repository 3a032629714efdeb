"""Images that do not fit in memory: read from their files by worker processes, batch after batch.

The workers only decode and resize; order and augmentation are drawn in the training process from
the epoch's seed, so that the number of workers changes no number. They end with the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from samtune.data.augmentation import NO_AUGMENTATION, Augmentation
from samtune.data.batches import Pixels, shuffled_indices
from samtune.errors import SamtuneError

READING_THREADS = 8
UNREADABLE = (
    OSError,
    UnidentifiedImageError,
    SyntaxError,  # Pillow's word for a damaged PNG
    ValueError,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class MaskReading:
    """How the pixels of a mask become classes.

    Attributes:
        num_classes: 1 makes every pixel above 0 foreground; more takes pixels as classes.
        first_class: the pixel value of class 0; what lies outside the classes is refused.
        allow_empty: whether a mask may show no foreground at all.
    """

    num_classes: int
    first_class: int = 0
    allow_empty: bool = False


@dataclass(frozen=True)
class ImageFiles:
    """A split as files: what `Images` is in memory.

    Attributes:
        paths: one image each.
        labels: a class for each image; empty where masks are the targets.
        masks: a mask for each image; empty where labels are the targets.
        size: height and width to which images and masks are resized.
        channels: 1 reads as grey, 3 as colour.
        workers: processes that read while training; 0 reads in the training process itself.
    """

    paths: Sequence[Path]
    size: tuple[int, int]
    labels: Sequence[int] = ()
    masks: Sequence[Path] = ()
    mask_reading: MaskReading = MaskReading(1)
    channels: int = 3
    workers: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Iterable[int]) -> ImageFiles:
        from dataclasses import replace

        chosen = [int(i) for i in index]
        return replace(
            self,
            paths=[self.paths[i] for i in chosen],
            labels=[self.labels[i] for i in chosen] if self.labels else (),
            masks=[self.masks[i] for i in chosen] if self.masks else (),
        )

    def joined(self, other: ImageFiles) -> ImageFiles:
        """These files, then others that are read alike."""
        from dataclasses import replace

        return replace(
            self,
            paths=[*self.paths, *other.paths],
            labels=[*self.labels, *other.labels],
            masks=[*self.masks, *other.masks],
        )

    @property
    def nbytes(self) -> int:
        """Memory that all images would take."""
        return len(self) * self.size[0] * self.size[1] * (self.channels + bool(self.masks))

    def read(self, index: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images (B, H, W, C) as bytes, and their labels (B,) or masks (B, H, W).

        Raises:
            SamtuneError: a file cannot be read, or a mask does not fit its image.
        """
        images = torch.stack([self._image(i) for i in index])
        if not self.masks:
            return images, torch.tensor([self.labels[i] for i in index])
        return images, torch.stack([self._mask(i) for i in index])

    def read_all(self) -> tuple[Tensor, Tensor]:
        """Everything, by several threads: PIL decodes outside Python's lock."""
        with ThreadPoolExecutor(READING_THREADS) as pool:
            parts = list(pool.map(lambda i: self.read([i]), range(len(self))))
        images, targets = zip(*parts, strict=True)
        return torch.cat(images), torch.cat(targets)

    def _image(self, i: int) -> Tensor:
        mode = "L" if self.channels == 1 else "RGB"
        image = open_image(self.paths[i])
        if image.mode.startswith(("I", "F")):  # Pillow would cut off what is above 255
            raise SamtuneError(
                f"image {self.paths[i]} has more than 8 bits a pixel (Pillow's mode {image.mode}): "
                "convert it to 8 bits"
            )
        pixels = np.asarray(image.convert(mode).resize(self.size[::-1], Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels.reshape(*self.size, self.channels).copy())

    def _mask(self, i: int) -> Tensor:
        mask = open_image(self.masks[i])
        size, expected = mask.size, image_size(self.paths[i])
        if size != expected:
            raise SamtuneError(
                f"mask {self.masks[i]} is {size[0]}x{size[1]} but its image {self.paths[i].name} "
                f"is {expected[0]}x{expected[1]}: both must have the same size"
            )
        # Palette images hold classes; converted to grey they would hold colours.
        mask = mask if mask.mode in ("P", "L", "1") else mask.convert("L")
        classes = self._classes(np.asarray(mask).astype(np.int64), self.masks[i])
        resized = Image.fromarray(classes).resize(self.size[::-1], Image.Resampling.NEAREST)
        return torch.from_numpy(np.asarray(resized).copy())

    def _classes(self, values: np.ndarray[Any, Any], path: Path) -> np.ndarray[Any, Any]:
        reading = self.mask_reading
        if reading.num_classes == 1:
            classes = values > 0
            if not reading.allow_empty and not classes.any():
                raise SamtuneError(
                    f"mask {path} has no foreground pixel: remove it with its image, or set "
                    "dataset.allow_empty_masks to true"
                )
            return classes.astype(np.uint8)
        classes = values - reading.first_class
        if classes.min() < 0 or classes.max() >= reading.num_classes:
            last = reading.first_class + reading.num_classes - 1
            raise SamtuneError(
                f"mask {path} has pixels from {values.min()} to {values.max()}, but its "
                f"{reading.num_classes} classes are {reading.first_class} to {last}: correct it, "
                "or dataset.num_classes"
            )
        return classes.astype(np.uint8)


def open_image(path: Path) -> Image.Image:
    """A decoded image.

    Raises:
        SamtuneError: it is missing or damaged.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except UNREADABLE as error:
        raise SamtuneError(
            f"image {path} cannot be read ({type(error).__name__}): replace or remove it"
        ) from error


def image_size(path: Path) -> tuple[int, int]:
    """Width and height, from the head of the file alone."""
    try:
        with Image.open(path) as image:
            return image.size
    except UNREADABLE as error:
        raise SamtuneError(
            f"image {path} cannot be read ({type(error).__name__}): replace or remove it"
        ) from error


class StreamedBatches:
    """`Batches` of image files; see `Pixels` for the other arguments."""

    def __init__(
        self,
        files: ImageFiles,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
        device: torch.device,
        augmentation: Augmentation,
    ) -> None:
        if not len(files):
            raise ValueError("there are no images to make batches of")
        self.batch_size = batch_size
        self._files = files
        self._device = device
        self._augmentation = augmentation
        self._mean, self._std = mean, std

    def __len__(self) -> int:
        return len(self._files)

    def shuffled(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Batches.shuffled`."""
        random = np.random.default_rng(seed)
        indices = [i.tolist() for i in shuffled_indices(len(self), self.batch_size, random)]
        for images, targets in self._read(indices):
            pixels = self._pixels(images, targets, self._augmentation)
            yield pixels.augmented(torch.arange(len(images)), random)

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Batches.in_order`."""
        everything = range(len(self))
        size = self.batch_size
        indices = [list(everything[start : start + size]) for start in everything[::size]]
        for images, targets in self._read(indices):
            yield self._pixels(images, targets, NO_AUGMENTATION).plain(slice(None))

    def _pixels(self, images: Tensor, targets: Tensor, augmentation: Augmentation) -> Pixels:
        return Pixels(
            images,
            targets,
            mean=self._mean,
            std=self._std,
            device=self._device,
            augmentation=augmentation,
        )

    def _read(self, indices: list[list[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(
            _Reader(self._files),
            sampler=indices,  # each "index" is a batch: see _Reader
            batch_size=None,
            num_workers=self._files.workers,
            pin_memory=self._device.type == "cuda",
            # Drawn from here and not from torch's generator, whose state is the dropout's.
            generator=torch.Generator(),
        )
        for read in loader:  # its workers end with this loop, however it is left
            if isinstance(read, str):
                raise SamtuneError(read)
            yield read


class _Reader(Dataset[Any]):
    """Reads a batch at a time, so that a worker hands over one block of memory."""

    def __init__(self, files: ImageFiles) -> None:
        self._files = files

    def __getitem__(self, index: list[int]) -> Any:
        try:
            return self._files.read(index)
        except SamtuneError as error:  # a worker's exception would arrive as a traceback's text
            return str(error)
