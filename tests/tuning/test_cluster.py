"""Which Ray is joined, with which token, and how many trials it holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from samtune.config.schema import ResourcesConfig
from samtune.errors import SamtuneError
from samtune.tuning.cluster import AUTH_MODE, AUTH_TOKEN, find_slots


def _nodes(*resources: dict[str, float]) -> list[dict[str, object]]:
    return [{"Alive": True, "Resources": r} for r in resources]


@pytest.mark.parametrize(
    ("nodes", "wanted", "trials", "gpus"),
    [
        (_nodes({"CPU": 8.0}), {"cpus": 2}, 4, 0.0),
        (_nodes({"CPU": 8.0, "GPU": 2.0}), {"cpus": 1}, 2, 1.0),
        (_nodes({"CPU": 8.0, "GPU": 1.0}), {"cpus": 1, "gpus": 0.25}, 4, 0.25),
        (_nodes({"CPU": 4.0}, {"CPU": 3.0}), {"cpus": 2}, 3, 0.0),
        (_nodes({"CPU": 8.0, "GPU": 2.0}), {"cpus": 1, "gpus": 0}, 8, 0.0),
    ],
)
def test_slots_are_what_fits_on_each_node(
    nodes: list[dict[str, object]], wanted: dict[str, float], trials: int, gpus: float
) -> None:
    slots = find_slots(nodes, ResourcesConfig.model_validate(wanted))
    assert (slots.trials, slots.gpus) == (trials, gpus)


def test_what_fits_nowhere_is_refused_with_the_numbers() -> None:
    with pytest.raises(SamtuneError, match=r"64 CPUs and 1 GPUs .* largest node has 4 CPUs and 0"):
        find_slots(_nodes({"CPU": 4.0}), ResourcesConfig(cpus=64, gpus=1.0))


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
    assert "local Ray cannot be reached: " in ran.stdout
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
