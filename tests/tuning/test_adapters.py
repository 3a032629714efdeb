"""What Ray Tune is answered, as the nodes come and go."""

from __future__ import annotations

from collections.abc import Callable

from ray.tune.search import Searcher

from samtune.config.schema import StudyConfig
from samtune.study.folder import StudyFolder
from samtune.study.trial_folder import Outcome
from samtune.tuning.adapters import Guard, TuneSearcher
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
