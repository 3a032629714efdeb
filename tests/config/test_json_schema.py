"""Editors accept what samtune accepts, and mark a misspelled key."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from samtune.config.json_schema import study_schema
from samtune.config.yaml_reader import parse_yaml, read_yaml

FILES = sorted((Path(__file__).parent.parent.parent / "search_spaces").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads(json.dumps(study_schema(), allow_nan=False))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.stem))
def test_every_bundled_study_file_is_valid(path: Path, validator: Draft202012Validator) -> None:
    assert [str(e) for e in validator.iter_errors(read_yaml(path).value)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("studdy",), {}),
        (("trial", "modle"), {}),
        (("trial", "model", "widht_factor"), 2),
        (("trial", "model", "name"), "wide_resent"),
        (("trial", "model", "depth"), "10"),
        (("trial", "dataset", "label_nois"), 0.4),
        (("trial", "optimizer", "momentun"), 0.9),
        (("trial", "sam", "rh0"), 0.1),
        (("trial", "sam", "variant"), "asma"),
        (("trial", "training", "batchsize"), 4),
        (("trial", "training", "epochs"), 0),
        (("search_space", "sam.rho", "logg"), True),
        (("search_space", "sam.rho", "float"), [0.1]),
        (("study", "trails"), 4),
        (("study", "scheduler", "grace_epoch"), 4),
        (("study", "keep_weights"), 0),
        (("name",), "no name"),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "",
)
def test_a_misspelled_key_or_a_wrong_value_is_marked(
    validator: Draft202012Validator, study_text: str, path: tuple[str, ...], value: Any
) -> None:
    right = parse_yaml(study_text, "tiny.yaml").value
    assert validator.is_valid(right)
    wrong = copy.deepcopy(right)
    inner = wrong
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert not validator.is_valid(wrong)


def test_what_files_may_say_in_short_is_valid(
    validator: Draft202012Validator, study_text: str
) -> None:
    said = parse_yaml(study_text, "tiny.yaml").value
    said["study"] |= {"scheduler": "median", "keep_weights": None, "resources": {"gpus": 0.5}}
    said["trial"]["sam"] = {"rho": 1, "adaptive": True}
    said["trial"]["model"] = {"name": "torchvision/resnet18", "pretrained": True}
    said["search_space"]["sam.variant"] = [
        {"choice": ["sam", "asam"], "when": {"optimizer.name": "sgd"}}
    ]
    assert [str(e) for e in validator.iter_errors(said)] == []


def test_settings_are_described_as_in_the_docstrings() -> None:
    schema = study_schema()
    parts = schema["$defs"]
    assert parts["SamConfig"]["properties"]["sigma"]["description"].startswith("of `fsam`")
    assert parts["SearchConfig"]["properties"]["target"]["description"] == (
        "once a trial's metric is as good, no trial is begun."
    )
    (resnet,) = (
        one["then"]
        for one in parts["TrialConfig"]["properties"]["model"]["allOf"]
        if one["then"]["title"] == "wide_resnet"
    )
    assert resnet["properties"]["width_factor"]["type"] == "integer"
    assert "depth" in resnet["properties"]
