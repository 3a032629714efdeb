"""What Ray Tune is answered, as the nodes come and go."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future

from ray import tune
from ray.tune.search import Searcher

from samtune.config.resources import ResourcesConfig
from samtune.config.schema import StudyConfig
from samtune.study.folder import StudyFolder
from samtune.study.trial_folder import Outcome
from samtune.tuning.adapters import Guard, Placement, TuneSearcher
from samtune.tuning.cluster import Place
from samtune.tuning.nodes import Nodes
from samtune.tuning.run import Silent
from samtune.tuning.search import Search

Make = Callable[..., StudyConfig]


def test_as_many_trials_are_out_as_the_nodes_hold_at_the_time(
    study_folder: StudyFolder, study_config: Make
) -> None:
    search = Search(study_folder, study_config(), 1, Silent())
    places = 2
    searcher = TuneSearcher(search, {"cpus": 1}, lambda: places, Guard(lambda: None))

    def handed_out() -> list[str]:
        keys = []
        while isinstance(asked := searcher.suggest(""), dict):
            assert asked["cpus"] == 1
            keys.append(asked["key"])
        assert asked is None
        return keys

    def end(key: str) -> None:
        search.end(key, Outcome("stopped", 1), write=True)

    assert handed_out() == ["t0000", "t0001"]
    assert handed_out() == []
    places = 3  # a node has come
    assert handed_out() == ["t0002"]
    places = 1  # two are gone, and the trials that were on them wait for a place
    end("t0000")
    end("t0001")
    assert handed_out() == []
    end("t0002")
    assert handed_out() == ["t0003"]
    search.on_fault("t0003", "no storage", gives_up=True)
    assert handed_out() == ["t0004"]
    search.stop()
    assert searcher.suggest("") == Searcher.FINISHED  # though there is no place


def test_a_worker_gets_a_placement_that_is_rays_own_and_equal() -> None:
    nodes = Nodes(ResourcesConfig(), list, lambda _node, _place: Future(), print)
    placement = Placement(Place(cpus=2, gpus=0.5), nodes)
    sent = pickle.loads(pickle.dumps(placement))
    assert type(sent) is tune.PlacementGroupFactory
    assert sent == placement
    assert sent.required_resources == {"CPU": 2.0, "GPU": 0.5}


def test_what_ray_does_before_the_first_trial_imports_no_mlflow() -> None:
    code = """
import sys
from ray import tune
import samtune.tuning.adapters
from ray.air._internal import usage
usage.tag_callbacks([tune.Callback()])
assert "ray.tune.tune" in sys.modules
print("mlflow" in sys.modules)
"""
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout == "False\n"
