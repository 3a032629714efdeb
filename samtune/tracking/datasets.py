"""The splits of a data set as MLflow's inputs of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from samtune.config.trial import Named
from samtune.study.used_data import SplitFacts, UsedData
from samtune.tracking.redaction import redacted

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

CONTEXT_TAG = "mlflow.data.context"


def inputs(used: UsedData, dataset: Named) -> list[DatasetInput]:
    """The training and the validation split, under the data set's name.

    Their source is code: `samtune.data.load_dataset` with these settings.
    """
    settings = redacted({"name": dataset.name, **dataset.params})
    source = json.dumps({"tags": {key: str(value) for key, value in settings.items()}})
    splits = {"train": used.train, "validation": used.val}
    return [_input(dataset.name, source, facts, context) for context, facts in splits.items()]


def _input(name: str, source: str, facts: SplitFacts, context: str) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile: dict[str, Any] = {"images": facts.images}
    if facts.per_class:
        profile["images of each class"] = facts.per_class
    dataset = Dataset(name, facts.digest, "code", source, _schema(facts), json.dumps(profile))
    return DatasetInput(dataset, [InputTag(CONTEXT_TAG, context)])


def _schema(facts: SplitFacts) -> str:
    """MLflow's words for bytes in images, and for class indices or masks."""
    shape = [-1, *facts.shape]
    target = ("masks", "uint8", shape[:3]) if facts.has_masks else ("labels", "int64", [-1])
    parts = {"features": ("images", "uint8", shape), "targets": target}
    return json.dumps({"mlflow_tensorspec": {key: _tensor(*part) for key, part in parts.items()}})


def _tensor(name: str, dtype: str, shape: list[int]) -> str:
    spec = {"dtype": dtype, "shape": shape}
    return json.dumps([{"type": "tensor", "name": name, "tensor-spec": spec}])
