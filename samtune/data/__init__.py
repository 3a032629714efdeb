"""The datasets, one family a file; importing this package registers them all.

A dataset is a factory with keyword-only arguments that returns `DataSplits`. What fits in memory is
held there as bytes, what does not is streamed; either way a whole batch at a time is cropped,
flipped, cut out and normalised on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from samtune.data import (  # noqa: F401 - importing registers
    carvana,
    cifar,
    digits,
    digits_segmentation,
    folders,
    mnist,
    oxford_pet,
    random,
    svhn,
)
from samtune.data.lock import Locked, unlocked_test_split
from samtune.data.splits import DataSplits, Images
from samtune.errors import SamtuneError, raised
from samtune.registry import DATASETS
from samtune.secrets import from_environment

__all__ = [
    "DataSplits",
    "Images",
    "dataset_names",
    "dataset_problems",
    "load_dataset",
    "open_dataset",
    "unlocked_test_split",
]

LONGEST_REASON = 300
SPEAKING = (ValueError, RuntimeError, MemoryError, OSError)  # whose messages are sentences


def dataset_names() -> list[str]:
    """Every registered dataset."""
    return list(DATASETS)


def load_dataset(name: str, **params: Any) -> DataSplits:
    """The training and validation split of a dataset, and its test split, unread and locked.

    `open_test` works inside `with unlocked_test_split():` only.

    Args:
        name: a registered name.
        params: the dataset's own parameters, as `samtune datasets NAME` lists them.

    Raises:
        UnknownNameError: no such dataset.
        ValueError: a parameter is unknown or has the wrong type.
        SamtuneError: its files are missing or damaged; the message says what would help.
    """
    entry = DATASETS[name]
    # A trial's record holds plain values: the schema makes paths of paths again.
    with from_environment(params) as resolved:
        splits = entry.factory(**dict(entry.schema.model_validate(resolved)))
    if not isinstance(splits, DataSplits):
        raise TypeError(f"dataset {name!r}: its factory returned no DataSplits")
    return replace(splits, open_test=Locked(splits.open_test))


def open_dataset(name: str, params: Mapping[str, Any]) -> DataSplits:
    """`load_dataset` for what a study file says.

    Raises:
        SamtuneError: there is no such dataset, it cannot be loaded, or its own code failed.
    """
    with dataset_problems(name):
        return load_dataset(name, **params)


@contextmanager
def dataset_problems(name: str) -> Iterator[None]:
    """Whatever goes wrong with a dataset inside is said in a sentence, as a `SamtuneError`."""
    try:
        yield
    except SamtuneError:
        raise
    except Exception as error:  # a plugin's code: anything can come
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        if not reason or not isinstance(error, SPEAKING):
            reason = raised(error)
        raise SamtuneError(f"dataset {name}: {reason}") from error
