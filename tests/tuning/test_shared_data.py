"""Before the first trial of a session the data set is read; what is wrong with it is a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from samtune.config.schema import StudyConfig
from samtune.data import DataSplits, load_dataset
from samtune.errors import SamtuneError
from samtune.registry import DATASETS, register_dataset
from samtune.tuning.run import _shared_data


class Unsharable:
    """Ray, as far as it is needed, with no room left."""

    def put(self, _: Any) -> NoReturn:
        raise MemoryError


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("runtime", "the download was cut"),
        ("key", "KeyError: 'labels'"),
        ("none", "MemoryError"),
    ],
)
def test_what_a_data_set_raises_in_a_session_is_a_sentence(
    kind: str,
    sentence: str,
    study_config: Callable[..., StudyConfig],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DATASETS, "_entries", dict(DATASETS._entries))  # back as it was, afterwards
    errors = {"runtime": RuntimeError("the download was cut"), "key": KeyError("labels")}

    @register_dataset("gone_since")
    def gone_since(*, kind: str) -> DataSplits:
        if kind in errors:
            raise errors[kind]
        return load_dataset("digits")

    config = study_config(
        ("{name: digits, label_noise: 0.4}", f"{{name: gone_since, kind: {kind}}}")
    )
    with pytest.raises(SamtuneError) as raised:
        _shared_data(Unsharable(), config)
    assert str(raised.value).startswith(f"dataset gone_since: {sentence}")
