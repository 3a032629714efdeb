"""Which Ray is joined, with which token, and how many trials it holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray._private import utils as ray_utils

from samtune.config.resources import ResourcesConfig
from samtune.errors import SamtuneError
from samtune.tuning.cluster import (
    AUTH_MODE,
    AUTH_TOKEN,
    JOB_CONFIG,
    MOST_SHIPPED,
    check_size,
    place_of,
    ships_code,
    too_small,
    usable_cpus,
)
from tests.commands import samtune_here


def _nodes(*resources: dict[str, float]) -> list[dict[str, Any]]:
    return [{"Alive": True, "Resources": r} for r in resources]


@pytest.mark.parametrize(
    ("nodes", "wanted", "trials", "gpus"),
    [
        (_nodes({"CPU": 8.0}), {"cpus": 2}, 4, 0.0),
        (_nodes({"CPU": 8.0, "GPU": 2.0}), {"cpus": 1}, 2, 1.0),
        (_nodes({"CPU": 8.0, "GPU": 1.0}), {"cpus": 1, "gpus": 0.25}, 4, 0.25),
        (_nodes({"CPU": 4.0}, {"CPU": 3.0}), {"cpus": 2}, 3, 0.0),
        (_nodes({"CPU": 8.0, "GPU": 2.0}), {"cpus": 1, "gpus": 0}, 8, 0.0),
        # What is left of a device after 0.6 of it is gone holds nobody.
        (_nodes({"CPU": 64.0, "GPU": 8.0}), {"gpus": 0.6}, 8, 0.6),
        (_nodes({"CPU": 64.0, "GPU": 2.0}), {"gpus": 1 / 3}, 6, 1 / 3),
        (_nodes({"CPU": 64.0, "GPU": 8.0}), {"gpus": 3}, 2, 3.0),
        (_nodes({"CPU": 8.0, "memory": 10 * 2.0**30}), {"memory": "4GiB"}, 2, 0.0),
        (_nodes({"CPU": 8.0, "seat": 3.0}, {"CPU": 8.0}), {"custom": {"seat": 1}}, 3, 0.0),
        (
            _nodes({"CPU": 8.0, "GPU": 4.0, "accelerator_type:H100": 1.0}, {"CPU": 8.0, "GPU": 4}),
            {"accelerator_type": "H100"},
            4,
            1.0,
        ),
    ],
)
def test_slots_are_what_fits_on_each_node(
    nodes: list[dict[str, Any]], wanted: dict[str, Any], trials: int, gpus: float
) -> None:
    place = place_of(ResourcesConfig.model_validate(wanted), nodes)
    assert (sum(place.fits(node["Resources"]) for node in nodes), place.gpus) == (trials, gpus)


def test_what_fits_nowhere_is_refused_with_the_numbers() -> None:
    nodes = _nodes({"CPU": 4.0, "memory": 2e9, "GPU": 1.0, "accelerator_type:T4": 1.0})
    wanted = ResourcesConfig(cpus=64, gpus=1.0, memory="3GB", accelerator_type="H100")
    assert too_small(place_of(wanted, nodes), nodes) == (
        "study.resources asks for 64 CPUs, 1 GPUs, 3 GB of memory and a GPU of type H100 a trial, "
        "but the largest node has 4 CPUs, 1 GPUs, 2 GB of memory and GPUs of type T4"
    )


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 64),
        ({"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"}, 3),
        ({}, 64),
    ],
)
def test_cpus_are_those_of_the_container(
    files: dict[str, str], cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine of 64, with cgroups of either version."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpuset.cpus", "cpu.max")
    places = tuple(str(tmp_path / name) for name in names)
    monkeypatch.setattr(ray_utils._get_docker_cpus, "__defaults__", places)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert usable_cpus() == cpus


def test_ray_client_is_refused_before_anything_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text("name: tiny")
    given = samtune_here("run", str(file), "--address", "ray://head:10001", cwd=tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    for ended in (given, samtune_here("resume", "tiny", cwd=tmp_path)):
        assert ended.returncode == 2
        assert "ray://head:10001: a study is run on a node of the cluster" in ended.stderr
        assert "ray job submit" in ended.stderr
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_of_plugins_that_holds_more_than_code_is_not_shipped(tmp_path: Path) -> None:
    (tmp_path / "my_models.py").write_text("import torch")
    (tmp_path / "samtune_studies").mkdir()
    images = tmp_path / "images"
    images.mkdir()
    for large in (tmp_path / "samtune_studies" / "state", tmp_path / "best.pt", images / "all"):
        with open(large, "wb") as file:
            file.truncate(MOST_SHIPPED + 1)  # it takes no room on the disk
    with pytest.raises(SamtuneError, match=r"105 MB is the most: images \(105 MB\), my_models.py"):
        check_size(tmp_path)
    (tmp_path / ".rayignore").write_text("images/")
    check_size(tmp_path)


def test_a_job_of_rays_that_brought_a_folder_ships_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv(JOB_CONFIG, raising=False)
    assert not ships_code(None)
    assert ships_code("10.0.0.1:6379")
    monkeypatch.setenv(JOB_CONFIG, '{"runtime_env": {"env_vars": {"A": "b"}}, "metadata": {}}')
    assert ships_code("10.0.0.1:6379")
    monkeypatch.setenv(JOB_CONFIG, '{"runtime_env": {"working_dir": "gcs://_ray_pkg_1.zip"}}')
    assert not ships_code("10.0.0.1:6379")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without a token, and an environment that says nothing."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (AUTH_MODE, AUTH_TOKEN, "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")  # so that monkeypatch puts back what was there
        monkeypatch.delenv(name)
    return tmp_path


def _in_a_process_of_its_own(code: str) -> list[str]:
    """What it prints. Here a Ray may run already, and one whose token changes ends its process."""
    imports = "import os\nfrom samtune.tuning.cluster import *\n"
    imports += "from samtune.tuning.cluster import _authenticate, _can_show_a_token\n"
    ran = subprocess.run(
        [sys.executable, "-c", imports + code], capture_output=True, text=True, check=False
    )
    assert not ran.returncode, ran.stderr
    return ran.stdout.splitlines()


def test_a_ray_of_our_own_has_a_token_of_its_own(home: Path) -> None:
    code = """
for _ in range(2):
    _authenticate(None)
    print(os.environ.pop(AUTH_TOKEN))
    print(AUTH_MODE in os.environ)  # Ray's to switch on, where it starts the cluster
"""
    first, switched, second, still = _in_a_process_of_its_own(code)
    assert len(first) >= 32
    assert first != second
    assert switched == still == "False"


def test_a_cluster_that_is_given_is_shown_a_token_only_once_it_asks(home: Path) -> None:
    code = """
print(_can_show_a_token())
(Path.home() / ".ray").mkdir()
(Path.home() / ".ray" / "auth_token").write_text("secret")
_authenticate("10.0.0.1:6379")
print(AUTH_MODE in os.environ)
print(_can_show_a_token(), os.environ[AUTH_MODE])
print(_can_show_a_token())  # again
"""
    assert _in_a_process_of_its_own(code) == ["False", "False", "True token", "False"]


def test_what_the_user_has_chosen_stays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(AUTH_MODE, "disabled")
    code = """
for address in (None, "10.0.0.1:6379"):
    _authenticate(address)
    print(os.environ[AUTH_MODE], AUTH_TOKEN in os.environ)
"""
    assert _in_a_process_of_its_own(code) == ["disabled False"] * 2


LOCAL = """
import os, sys
from pathlib import Path
from samtune.errors import SamtuneError
from samtune.tuning.cluster import connected

with connected(None) as ray:
    @ray.remote(num_cpus=0)
    def answer():
        return 42
    print(ray.get(answer.remote(), timeout=60))
    print("auto:", os.environ.get("RAY_AUTH_MODE"))
with connected(None) as ray:
    print(ray.get(ray.put(43)))
print("left behind:", (Path.home() / ".ray").exists(), "RAY_AUTH_MODE" in os.environ)
"""


@pytest.mark.ray
@pytest.mark.parametrize("is_writable", [True, pytest.param(False, marks=pytest.mark.chaos)])
def test_a_local_ray_leaves_no_token_behind(
    home: Path, monkeypatch: pytest.MonkeyPatch, is_writable: bool
) -> None:
    """One that stayed in the home folder would be asked for by every later `ray start`."""
    if not is_writable:
        monkeypatch.setenv("HOME", "/proc")  # where root cannot write either
    ran = subprocess.run(
        [sys.executable, "-c", LOCAL], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.stdout.splitlines() == ["42", "auto: token", "43", "left behind: False False"], (
        ran.stderr
    )


def test_a_temporary_folder_that_ray_cannot_have_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc/none")
    code = LOCAL.replace("with connected", "try:\n  with connected").partition("    @ray")[0]
    code += "    pass\nexcept SamtuneError as error:\n  print(error)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Ray cannot be started on this machine: " in ran.stdout
    assert "'/proc/none'" in ran.stdout
    assert "Traceback" not in ran.stderr


def test_auto_joins_only_what_ray_start_began(home: Path) -> None:
    """A private Ray among the processes, such as the one of these very tests, is none of ours."""
    code = (
        "import ray._private.utils as utils\n"
        f"utils.get_ray_address_file = lambda temp_dir=None: {str(home / 'none')!r}\n"
        "from samtune.tuning.cluster import connected\n"
        "with connected('auto'): pass"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "no Ray cluster was begun on this machine" in ran.stderr
