"""The Pareto set against a brute-force search, and what is said of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from samtune.analysis import answer
from samtune.analysis.pareto import front, in_unit, objective, pareto_set
from samtune.cli.show import study_json
from samtune.config.objectives import mode_of
from samtune.config.study_file import check_study, read_study, to_yaml
from samtune.config.yaml_reader import parse_yaml
from samtune.errors import StudyFileError
from samtune.preflight import warnings_of
from samtune.report.parts import Plot, Subject, Table
from samtune.report.spent import cost
from samtune.study.study import Study
from samtune.tasks import TARGETS, study_metrics
from samtune.tracking.description import description
from tests.conftest import TINY
from tests.synthetic import RHO_ALONE, Make, Run

Written = Callable[..., Study]
METRICS = ("study: {", "study: {metrics: [val_accuracy, parameters, gradient_evaluations], ")


def _by_hand(points: Sequence[Sequence[float]], modes: Sequence[str]) -> list[int]:
    """Every pair compared."""

    def at_least(a: float, b: float, mode: str) -> bool:
        return a >= b if mode == "max" else a <= b

    def beats(one: Sequence[float], other: Sequence[float]) -> bool:
        triples = list(zip(one, other, modes, strict=True))
        return all(at_least(a, b, m) for a, b, m in triples) and any(a != b for a, b, _ in triples)

    return [i for i, p in enumerate(points) if not any(beats(other, p) for other in points)]


@pytest.mark.parametrize("modes", [("max",), ("max", "min"), ("min", "min"), ("max", "min", "max")])
@pytest.mark.parametrize("levels", [3, 1000])
def test_the_front_is_what_comparing_every_pair_finds(modes: tuple[str, ...], levels: int) -> None:
    """With few levels many points are equal, in one objective or in all."""
    random = np.random.default_rng(len(modes))
    for size in (0, 1, 2, 5, 60):
        for _ in range(40):
            points = random.integers(levels, size=(size, len(modes))).tolist()
            assert sorted(front(points, modes)) == _by_hand(points, modes)


def test_two_objectives_cost_a_sort() -> None:
    """100,000 points that all are on the front: a second at most, where pairs would take hours."""
    points = [(float(i), float(i)) for i in range(100_000)]
    started = time.process_time()
    assert len(front(points, ("max", "min"))) == len(points)
    assert time.process_time() - started < 5


def test_the_direction_of_every_metric_follows_from_its_name() -> None:
    for task in TARGETS:
        for name, mode in study_metrics(task).items():
            assert mode_of(name) == mode, name
    assert mode_of("parameters") == mode_of("epoch_s") == mode_of("gradient_evaluations") == "min"


@pytest.mark.parametrize(
    ("metrics", "sentence"),
    [
        ("[val_accuracy, parameter]", "study.metrics.1: no metric named 'parameter'. Did you mean"),
        ("[val_acuracy, parameters]", "study.metrics.0: no metric named 'val_acuracy'. Did you"),
        ("[parameters, val_accuracy]", "study.metrics.0: the first ranks and stops trials by"),
        ("[val_accuracy, epoch_s, epoch_s]", "study.metrics.2: epoch_s is there already"),
        ("[val_loss], metric: val_accuracy", "but study.metric is val_accuracy: leave that out"),
        ("parameters", "study.metrics: must be a list"),
        ("[val_accuracy, 3]", "study.metrics.1: must be text, got 3"),
    ],
)
def test_wrong_objectives_are_refused_by_place(metrics: str, sentence: str) -> None:
    text = TINY.replace("study: {", f"study: {{metrics: {metrics}, ")
    with pytest.raises(StudyFileError) as error:
        check_study(parse_yaml(text, "tiny.yaml"), Path.cwd())
    assert sentence in str(error.value)
    assert len(error.value.problems) == 1


def test_the_first_is_the_metric_and_the_folders_copy_keeps_both(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("study: {", "study: {metrics: [val_loss, epoch_s], "))
    config = read_study(path)
    assert (config.study.metric, config.mode) == ("val_loss", "min")
    (tmp_path / "copy.yaml").write_text(to_yaml(config))
    assert read_study(tmp_path / "copy.yaml") == config


def test_that_a_scheduler_goes_by_the_first_alone_is_said_before_it_does(
    study_config: Make,
) -> None:
    said = "asha stops trials by val_accuracy alone, those too that are better in parameters, "
    assert any(line.startswith(said) for line in warnings_of(study_config(METRICS)))
    none = ("scheduler: {name: asha, grace_epochs: 1, reduction_factor: 2}", "scheduler: none")
    assert not any("alone" in line for line in warnings_of(study_config(METRICS, none)))


@pytest.fixture
def study(written: Written, study_config: Make) -> Study:
    """Small and large models that are best at their second epoch, and some that are not known."""
    return written(
        study_config(RHO_ALONE, METRICS),
        [
            Run({"sam.rho": 0.1}, [0.5, 0.9, 0.8], parameters=4000, gradients=200),
            Run({"sam.rho": 0.2}, [0.5, 0.8, 0.7], parameters=1000, gradients=200),
            Run({"sam.rho": 0.3}, [0.5, 0.7, 0.6], parameters=4000, gradients=200),
            Run({"sam.rho": 0.4}, [0.6], "stopped", parameters=1000, gradients=200),
            Run({"sam.rho": 0.5}, [0.95], parameters=0),
        ],
        baseline=[0.5],
    )


def test_each_objective_is_of_the_epoch_that_the_trial_counts_by(study: Study) -> None:
    trial = study.trial("t0001")
    known = ["val_accuracy", "val_loss", "parameters", "epoch_s", "gradient_evaluations"]
    assert [objective(trial, name) for name in known] == [0.9, pytest.approx(1.1), 4000, 0.1, 400]
    assert objective(study.trial("t0005"), "parameters") is None
    assert objective(study.trial("t0005"), "gradient_evaluations") is None


def test_the_set_is_of_what_may_be_called_the_best_and_is_known(study: Study) -> None:
    found = pareto_set(study)
    assert found is not None
    # t0003 is beaten by both before it; t0004 was stopped at its first epoch, which cost 200.
    assert [p.trial for p in found.points] == ["t0001", "t0002", "t0004"]
    assert found.points[0].values == [0.9, 4000, 400]
    assert (found.trials, found.unknown) == (4, 2)


def test_with_one_objective_there_is_no_set(written: Written, study_config: Make) -> None:
    study = written(study_config(RHO_ALONE), [Run({"sam.rho": 0.1}, [0.5])])
    assert pareto_set(study) is None
    assert study_json(study)["pareto"] is None


def test_the_set_is_said_in_json_page_and_tracker(study: Study) -> None:
    told = study_json(study)
    assert told["metrics"] == ["val_accuracy", "parameters", "gradient_evaluations"]
    assert [p["trial"] for p in told["pareto"]["points"]] == ["t0001", "t0002", "t0004"]
    assert "| t0002 | 0.8000 | 1k | 400 | rho 0.2 |" in description(study)
    table, *plots = cost(Subject(study, answer(study))).parts
    assert isinstance(table, Table)
    assert table.rows[0] == ["t0001", "0.9000", "4k", "400", "rho 0.1"]
    assert [isinstance(plot, Plot) for plot in plots] == [True, True]
    assert "against parameters (how many weights the model has)" in plots[0].shows  # type: ignore[union-attr]
    assert "t0002 (0.8000 for 1k), t0001 (0.9000 for 4k)" in plots[0].shows  # type: ignore[union-attr]


def test_units_follow_from_the_name() -> None:
    assert in_unit("parameters", 78_042) == "78k"
    assert in_unit("epoch_s", 0.3126) == "0.31 s"
    assert in_unit("gradient_evaluations", 36_000) == "36k"
    assert in_unit("val_accuracy", 0.96) == "0.9600"


def test_the_ranking_is_the_firsts_whatever_the_others_say(study: Study) -> None:
    assert [t.key for t in study.ranking][:2] == ["t0005", "t0001"]
