"""The recipes of `deploy/`, as far as one machine can try them (`deploy/README.md`)."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ray.autoscaler._private.util import prepare_config, validate_config
from ruamel.yaml import YAML

from samtune.study import open_study
from tests.faults.harness import STUDY, Workplace
from tests.faults.oracle import PRINTED, check_ended, check_files

HERE = Path(__file__).parents[2]
DEPLOY = HERE / "deploy"
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
STUDIES = "/shared/studies"


def _read(name: str) -> Any:
    return YAML(typ="safe").load((DEPLOY / name).read_text())


def test_ray_up_takes_the_cluster_as_it_is() -> None:
    config = _read("ray-cluster.yaml")
    complete = prepare_config(config)
    validate_config(complete)
    types = complete["available_node_types"]
    assert types[complete["head_node_type"]]["resources"] == {"CPU": 0}
    assert types["trials"]["max_workers"] <= complete["max_workers"]
    shared = [line for line in config["docker"]["run_options"] if line.startswith("--volume")]
    assert shared == ["--volume=/shared:/shared"]


# What the operator's own types (ray.io/v1) call their fields, of those that are used here.
FIELDS = {
    "spec": {
        "entrypoint",
        "submissionMode",
        "backoffLimit",
        "shutdownAfterJobFinishes",
        "ttlSecondsAfterFinished",
        "rayClusterSpec",
    },
    "rayClusterSpec": {
        "rayVersion",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
        "headGroupSpec",
        "workerGroupSpecs",
    },
    "headGroupSpec": {"rayStartParams", "template"},
    "workerGroupSpec": {
        "groupName",
        "replicas",
        "minReplicas",
        "maxReplicas",
        "rayStartParams",
        "template",
    },
}


def test_the_job_for_kubernetes_has_the_operators_fields_and_one_storage_for_all_pods() -> None:
    job = _read("kuberay.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert set(job["spec"]) == FIELDS["spec"]
    assert set(cluster) == FIELDS["rayClusterSpec"]
    assert set(head) == FIELDS["headGroupSpec"]
    assert set(workers) == FIELDS["workerGroupSpec"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (head, workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    pods = [group["template"]["spec"] for group in (head, workers)]
    assert pods[0]["volumes"] == pods[1]["volumes"]
    containers = [pod["containers"][0] for pod in pods]
    assert containers[0]["image"] == containers[1]["image"]
    assert containers[0]["volumeMounts"] == containers[1]["volumeMounts"]
    volumes = {volume["name"] for volume in pods[0]["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in containers[0]["volumeMounts"]}
    assert set(mounts) == volumes
    bash, script, storage, _, file, *_ = job["spec"]["entrypoint"].split()
    assert (bash, storage) == ("bash", STUDIES)
    assert Path(storage).parent == Path(mounts["shared"])
    assert Path(file).parent == Path(mounts["study"])
    assert script == "/opt/samtune/deploy/run-or-resume.sh"
    (ray,) = (need for need in PROJECT["dependencies"] if need.startswith("ray"))
    assert cluster["rayVersion"].startswith(re.findall(r">=([\d.]+)", ray)[0])


def test_the_image_copies_what_there_is_and_installs_what_the_project_offers() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        *sources, _ = line.split()
        assert all((HERE / source).exists() for source in sources), line
    (extra,) = re.findall(r"'\.\[(\w+)\]'", text)
    assert extra in PROJECT["optional-dependencies"]
    minimum = re.findall(r">=([\d.]+)", PROJECT["requires-python"])[0]
    assert f"FROM python:{minimum}-" in text


def _executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_driver_that_is_started_again_goes_on(tmp_path: Path) -> None:
    _executable(tmp_path / "samtune", '#!/bin/bash\necho "$RAY_ADDRESS: $*"\n')
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def said() -> str:
        command = ["bash", DEPLOY / "run-or-resume.sh", tmp_path, "mine", "f.yaml", "--plugin", "m"]
        return subprocess.run(
            command, env=path, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert said() == f"auto: run f.yaml --name mine --storage {tmp_path} --plugin m"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").touch()
    path["RAY_ADDRESS"] = "10.0.0.1:6379"
    assert said() == (f"10.0.0.1:6379: resume mine --storage {tmp_path} --force-unlock --plugin m")


# On a machine without SLURM: all nodes are this one.
SRUN = """#!/bin/bash
count=1
while [[ $1 == --* ]]; do
    case $1 in --ntasks=*) count=${1#*=} ;; esac
    shift
done
for ((i = 0; i < count; i++)); do "$@" & done
trap 'kill $(jobs -p) 2>/dev/null' TERM
wait
wait
"""
SCONTROL = """#!/bin/bash
case $1 in
    show) for ((i = 0; i < 2; i++)); do hostname; done ;;
    requeue) echo "$2" >>requeued ;;
esac
"""


class Slurm:
    """Starts the script as `sbatch` would."""

    def __init__(self, place: Workplace) -> None:
        self.place = place
        tools = place.folder / "bin"
        tools.mkdir()
        _executable(tools / "srun", SRUN)
        _executable(tools / "scontrol", SCONTROL)
        _executable(tools / "samtune", f'#!/bin/bash\nexec {sys.executable} -m samtune "$@"\n')
        wanted = dict(re.findall(r"^#SBATCH --([\w-]+)=(.+)$", self.script, re.MULTILINE))
        assert wanted["signal"].startswith("B:TERM@"), "the script's trap is for the batch shell"
        folders = [tools, Path(sys.executable).parent]
        self.environment = {
            **os.environ,
            "PATH": ":".join([*map(str, folders), os.environ["PATH"]]),
            "MLFLOW_TRACKING_URI": place.mlflow,
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NODELIST": "here[1-2]",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "1",
            "SLURM_SUBMIT_DIR": str(HERE),
            "STORAGE": str(place.storage),
            "NAME": "killed",
            "FILE": str(place.folder / "killed.yaml"),
            "OPTIONS": "--plugin slow_plugin --verbose",
        }

    @property
    def script(self) -> str:
        return (DEPLOY / "slurm.sh").read_text()

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", DEPLOY / "slurm.sh"],
            cwd=self.place.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.mark.chaos
@pytest.mark.ray
def test_a_slurm_job_whose_time_is_up_is_queued_again_and_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    place = Workplace(tmp_path, re.sub(r"cpus: \d+", "cpus: 1", STUDY))
    slurm = Slurm(place)
    job = slurm.start()
    assert job.stdout is not None
    for line in job.stdout:
        place.printed += line
        if PRINTED.match(line):
            break
    job.send_signal(signal.SIGTERM)
    assert place.finish(job) == 128 + signal.SIGTERM, place.printed
    assert (place.folder / "requeued").read_text().split() == [slurm.environment["SLURM_JOB_ID"]]
    assert open_study("killed", place.storage).state == "interrupted"

    job = slurm.start()
    assert place.finish(job) == 0, place.printed
    check_ended(check_files(place.storage, "killed", place.printed))
