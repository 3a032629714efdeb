"""What tells one split from another, in a few characters, and how its classes are filled."""

from __future__ import annotations

import hashlib
import json
import os

import torch

from samtune.data.splits import Split
from samtune.data.streaming import ImageFiles

AT_ONCE = 1024  # images


def digest_of(split: Split) -> str:
    """A split's digest, alike on every machine; a second's work for a gigabyte in memory.

    It is of every pixel and target where they are in memory. Where images are streamed, it is of
    the names of the files, their labels, and how they are read.
    """
    digest = hashlib.blake2b(digest_size=8)
    if isinstance(split, ImageFiles):
        digest.update(_names_and_labels(split))
        return digest.hexdigest()
    height, width = split.size
    digest.update(f"{len(split)} {height} {width} {split.channels}".encode())
    # The border that shared images have is no part of them.
    inner = slice(split.border, split.border + height), slice(split.border, split.border + width)
    for start in range(0, len(split), AT_ONCE):
        images = split.images[start : start + AT_ONCE][:, *inner]
        targets = split.targets[start : start + AT_ONCE]
        for values in (images, targets[:, *inner] if has_masks(split) else targets):
            digest.update(values.contiguous().numpy().data)
    return digest.hexdigest()


def _names_and_labels(split: ImageFiles) -> bytes:
    paths = [*split.paths, *split.masks]
    folder = os.path.commonpath([path.parent for path in paths]) if paths else ""
    names = [os.path.relpath(path, folder) for path in paths]
    read_as = [*split.size, split.channels, str(split.mask_reading)]
    return json.dumps([names, [int(label) for label in split.labels], read_as]).encode()


def has_masks(split: Split) -> bool:
    """Whether each image has a mask, and not a class."""
    return bool(split.masks) if isinstance(split, ImageFiles) else split.targets.dim() == 3


def images_per_class(split: Split, num_classes: int) -> list[int]:
    """How many images each class has; empty where masks are the targets."""
    if has_masks(split):
        return []
    labels = torch.as_tensor(split.labels if isinstance(split, ImageFiles) else split.targets)
    counts: list[int] = torch.bincount(labels.long(), minlength=num_classes).tolist()
    return counts
