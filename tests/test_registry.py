from __future__ import annotations

import pytest
from pydantic import ValidationError

from samtune.errors import UnknownNameError
from samtune.registry import Count, Registry, Share


def _registry() -> Registry:
    registry = Registry("model", provided=("num_classes",))

    @registry.register("net", "classification")
    def net(*, num_classes: int, depth: Count = 2, dropout: Share = 0.0, kind: str = "a") -> None:
        """A net.

        Args:
            depth: how many layers,
                on two lines.
            dropout: a share.
        """

    return registry


def test_the_signature_is_the_schema() -> None:
    entry = _registry()["net"]
    assert entry.summary == "A net."
    shown = {p.name: (p.default, p.required, p.description) for p in entry.parameters}
    assert shown == {
        "depth": (2, False, "how many layers, on two lines."),
        "dropout": (0.0, False, "a share."),
        "kind": ("a", False, ""),
    }


@pytest.mark.parametrize(
    "params", [{"depth": True}, {"depth": 0}, {"depth": "3"}, {"dropout": 1.0}, {"num_classes": 2}]
)
def test_values_a_signature_does_not_allow_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        _registry()["net"].schema.model_validate(params)


def test_a_taken_name_is_an_error_and_an_unknown_one_brings_the_nearest() -> None:
    registry = _registry()
    with pytest.raises(ValueError, match="'net' is registered already"):
        registry.register("net", None)(lambda: None)
    with pytest.raises(UnknownNameError, match="No model named 'nett'. Did you mean 'net'?"):
        registry["nett"]


def test_arguments_must_be_keyword_only() -> None:
    with pytest.raises(ValueError, match="argument 'depth' must be keyword-only"):
        _registry().register("other", None)(lambda depth: depth)
