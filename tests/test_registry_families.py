from __future__ import annotations

from collections.abc import Sequence

import pytest

from samtune.errors import SamtuneError, UnknownNameError
from samtune.registry import Count, Family, Registry


def library(names):
    def make(name):
        def build(*, sizes: Sequence[Count] = (1, 2)) -> str:
            """One of a library's.

            Args:
                sizes: how large.
            """
            return f"{name} {list(sizes)}"

        return build

    return Family("lib", "classification", "All of lib.", names, make)


def registry(names):
    found = Registry("model")
    found.register_family(library(names))
    return found


def test_a_member_is_found_by_prefix_and_name_and_made_once():
    models = registry(lambda: ["one", "two"])
    assert "lib/one" in models
    assert "lib/three" not in models
    assert models["lib/one"].factory(sizes=[3]) == "one [3]"
    assert models["lib/one"] is models["lib/one"]
    assert list(models) == []


def test_nothing_is_listed_before_a_member_is_asked_for():
    def never():
        raise AssertionError("listed")

    models = registry(never)
    assert list(models) == []
    assert "other" not in models
    with pytest.raises(UnknownNameError, match=r"Registered: lib/\.\.\."):
        models["other"]


def test_a_missing_library_says_how_to_install_it():
    def missing():
        raise SamtuneError("lib is not installed: pip install lib")

    models = registry(missing)
    assert "lib/one" not in models
    with pytest.raises(SamtuneError, match="pip install lib"):
        models["lib/one"]


def test_a_list_is_shown_and_checked_as_one():
    entry = registry(lambda: ["one"])["lib/one"]
    (parameter,) = entry.parameters
    assert (parameter.type, parameter.default) == ("list of int", [1, 2])
    assert parameter.description == "how large."
    assert entry.schema.model_validate({"sizes": [4, 5]})
    for wrong in ("45", [4, "5"], [0], [True], 4):
        with pytest.raises(ValueError, match="sizes"):
            entry.schema.model_validate({"sizes": wrong})
