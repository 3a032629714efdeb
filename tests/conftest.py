"""What several test files share: a tiny study file and folders of their own."""

from __future__ import annotations

import functools
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before numpy is imported: threads that wait for each other in small matrices take whole cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import torch
from filelock import FileLock

from samtune.config.schema import StudyConfig
from samtune.config.study_file import check_study
from samtune.config.yaml_reader import parse_yaml
from samtune.study.folder import StudyFolder
from samtune.study.study import Study
from samtune.training import amx, precision
from tests.s3_server import s3, s3_server  # noqa: F401 - fixtures
from tests.synthetic import write_study

TINY = """
name: tiny
trial:
  model: {name: wide_resnet, depth: 10, width_factor: 1}
  dataset: {name: digits, label_noise: 0.4}
  optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
  sam: {rho: 0.3}
  training: {epochs: 3, batch_size: 400}
search_space:
  sam.rho: {float: [0.01, 1.0], log: true}
  optimizer.lr: {float: [0.01, 0.5], log: true}
study: {trials: 4, scheduler: {name: asha, grace_epochs: 1, reduction_factor: 2}, report: false}
"""


def pytest_collection() -> None:
    """What is imported stays: to look for garbage in it is a fifth of what collecting costs."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_itemcollected(item: pytest.Item) -> None:
    """What starts Ray, or an MLflow server, runs in one process: to start one takes seconds."""
    fixtures = getattr(item, "fixturenames", ())
    if "local_ray" in fixtures:
        item.add_marker(pytest.mark.ray)
    if item.get_closest_marker("ray"):
        item.add_marker(pytest.mark.xdist_group("ray"))
    elif "server" in fixtures:
        item.add_marker(pytest.mark.xdist_group("server"))


@pytest.fixture(autouse=True)
def _way_for_what_takes_longest(request: pytest.FixtureRequest) -> None:
    """The tests with Ray decide when all are done: the others leave them the cores they can use."""
    if "PYTEST_XDIST_WORKER" in os.environ and not request.node.get_closest_marker("ray"):
        os.setpriority(os.PRIO_PROCESS, 0, 19)  # Ray gives its workers 15


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One local Ray for all tests that need no cluster of their own: starting one takes seconds."""
    from samtune.tuning.cluster import connected

    with connected(None):
        yield


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without a run: making its tables takes longer than a test."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # that of all processes of this run
    path = shared / "empty.db"
    with FileLock(shared / "empty.db.lock"):
        if not path.exists():
            import mlflow

            made = path.with_suffix(".unfinished")
            mlflow.MlflowClient(f"sqlite:///{made}").search_experiments()
            made.rename(path)
    return path


@pytest.fixture
def mlflow_here(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store that a study in `tmp_path` is recorded in, with its tables made."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))


class Processor:
    """What torch reports of a processor without a GPU, and what is found behind it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        monkeypatch.delenv(amx.LIMIT, raising=False)

    def has(self, *, amx_flag: bool, tiles: bool, avx512_bf16: bool, amd: bool) -> None:
        set_ = self._monkeypatch.setattr
        set_(torch.cuda, "is_available", lambda: False)
        set_(torch.cpu, "_is_amx_tile_supported", lambda: amx_flag)
        set_(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
        set_(amx, "_has_tiles", lambda: tiles)
        set_(precision, "_is_amd", lambda: amd)
        amx.has_amx.cache_clear()

    def is_fast_at(self, precision: str) -> None:
        """Makes `auto` come to fp32 or bf16."""
        zen_4 = precision == "bf16"
        self.has(amx_flag=False, tiles=False, avx512_bf16=zen_4, amd=zen_4)


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Processor]:
    yield Processor(monkeypatch)
    amx.has_amx.cache_clear()


@pytest.fixture
def study_text() -> str:
    return TINY


@pytest.fixture
def study_config() -> Callable[..., StudyConfig]:
    """Makes a checked study, from `TINY` with replaced pieces of text."""

    def make(*replacements: tuple[str, str]) -> StudyConfig:
        text = TINY
        for old, new in replacements:
            assert old in text, old
            text = text.replace(old, new)
        return check_study(parse_yaml(text, "tiny.yaml"), Path.cwd())

    return make


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Study]:
    """Writes a study of given trials (`tests/synthetic.py`) into a folder of the test's own."""
    return functools.partial(write_study, tmp_path)


@pytest.fixture
def study_folder(tmp_path: Path, study_config: Callable[..., StudyConfig]) -> StudyFolder:
    """A new study on disk with no trial in it."""
    return StudyFolder.create(tmp_path, study_config())
