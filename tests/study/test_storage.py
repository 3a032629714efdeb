"""What a user may say for `storage`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from samtune.config.schema import StudyConfig
from samtune.errors import SamtuneError
from samtune.study import open_study
from samtune.study.storage import storage_path
from samtune.tuning import resume_study, run_study
from tests.commands import samtune_here

OTHERS = ["gs://bucket/studies", "az://a/b", "http://host/x", "hdfs://h/y"]


@pytest.mark.parametrize("address", [*OTHERS, Path("gs://bucket/studies")])
def test_an_address_of_another_kind_is_refused_in_a_sentence(
    address: str | Path, study_config: Callable[..., StudyConfig]
) -> None:
    said = "samtune cannot keep studies at .*:// addresses; name a folder"
    for use in (
        lambda: storage_path(address),
        lambda: open_study("tiny", address),
        lambda: run_study(study_config(), storage=address),
        lambda: resume_study("tiny", storage=address),
    ):
        with pytest.raises(SamtuneError, match=said):
            use()


@pytest.mark.parametrize(
    "command", [["list"], ["show", "tiny"], ["run", "tiny.yaml"], ["train", "tiny.yaml"]]
)
def test_the_command_line_refuses_it_and_makes_no_folder(
    command: list[str], tmp_path: Path, study_text: str
) -> None:
    (tmp_path / "tiny.yaml").write_text(study_text)
    done = samtune_here(*command, "--storage", "gs://bucket/studies", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("samtune: storage gs://bucket/studies: samtune cannot keep")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_file_address_is_the_folder_it_names() -> None:
    assert storage_path("file:///data/my%20studies") == Path("/data/my studies")
    assert storage_path("a:b/c") == Path("a:b/c")
    assert storage_path(Path("studies")) == Path("studies")
    with pytest.raises(SamtuneError, match="no folder of this machine"):
        storage_path("file://elsewhere/studies")
