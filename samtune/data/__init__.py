"""The datasets, one family a file; importing this package registers them all.

A dataset is a factory with keyword-only arguments that returns `DataSplits`. What fits in memory is
held there as bytes and is cropped, flipped, cut out and normalised a batch at a time.
"""

from __future__ import annotations

from typing import Any

from samtune.data import cifar, digits  # noqa: F401 - importing registers
from samtune.data.splits import DataSplits, Images
from samtune.registry import DATASETS

__all__ = ["DataSplits", "Images", "dataset_names", "load_dataset"]


def dataset_names() -> list[str]:
    """Every registered dataset."""
    return list(DATASETS)


def load_dataset(name: str, **params: Any) -> DataSplits:
    """The training, validation and (unread) test split of a dataset.

    Args:
        name: a registered name.
        params: the dataset's own parameters, as `samtune datasets NAME` lists them.

    Raises:
        UnknownNameError: no such dataset.
        ValueError: it has no such parameter, or not with this value.
        SamtuneError: its files are missing or damaged; the message says what would help.
    """
    entry = DATASETS[name]
    checked = entry.schema.model_validate(params)  # from JSON, a path is still a string
    splits = entry.factory(**dict(checked))
    if not isinstance(splits, DataSplits):
        raise TypeError(f"dataset {name!r}: its factory returned no DataSplits")
    return splits
