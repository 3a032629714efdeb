from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from samtune.cli import app


def shown(*arguments):
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def test_a_family_takes_one_line_of_the_list():
    lines = [line for line in shown("models").splitlines() if line.startswith("torchvision")]
    assert len(lines) == 1
    assert lines[0].startswith("torchvision/<name>")


def test_the_names_of_a_family_can_be_listed():
    output = shown("models", "torchvision")
    assert "resnet18" in output
    found = json.loads(shown("models", "torchvision", "--json"))
    assert "torchvision/resnet18" in found["names"]


def test_a_member_of_a_family_shows_its_parameters():
    assert "stem" in shown("models", "torchvision/resnet18")


@pytest.mark.parametrize("kind", ["models", "datasets"])
def test_everything_comes_as_json_with_types_and_defaults(kind):
    entries = {entry["name"]: entry for entry in json.loads(shown(kind, "--json"))}
    name, parameter, type_, default = {
        "models": ("resnet", "blocks", "list of int", [3, 3, 3]),
        "datasets": ("image_folder", "image_size", "int x int", [224, 224]),
    }[kind]
    found = next(p for p in entries[name]["parameters"] if p["name"] == parameter)
    assert (found["type"], found["default"]) == (type_, default)
    assert found["description"]
