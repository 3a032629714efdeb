"""`precision: auto` in whole runs, on processors that are described here, so on any machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from samtune.config.schema import StudyConfig
from samtune.config.study_file import check_study
from samtune.config.yaml_reader import parse_yaml
from samtune.study import Trial, open_study
from samtune.study.single import train_single
from samtune.study.weights import load_trained
from tests.conftest import TINY, Processor

MODELS = {
    "resnet": "{name: resnet, blocks: [1], channels: [4]}",
    "capsnet": "{name: capsnet, channels: 4, primary_capsules: 1, kernel_size: 3, decoder: [4]}",
}


def study(model: str = "resnet", precision: str = "auto", select: str = "best") -> StudyConfig:
    text = TINY.replace("{name: wide_resnet, depth: 10, width_factor: 1}", MODELS[model])
    text = text.replace("epochs: 3", f"epochs: 2, precision: {precision}")
    text = text.replace("trials: 4", f"trials: 4, select: {select}")
    return check_study(parse_yaml(text, "tiny.yaml"), Path.cwd())


def trained(config: StudyConfig, name: str, storage: Path) -> Trial:
    *_, last = train_single(config, name, storage)
    assert last.outcome is not None
    assert last.outcome.state == "finished", last.outcome.reason
    return open_study(name, storage).trials[0]


def metrics(trial: Trial) -> list[dict[str, float]]:
    return [entry.metrics for entry in trial.epochs]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("model", MODELS)
def test_auto_trains_like_the_precision_that_the_processor_is_fast_at(
    model: str, precision: str, tmp_path: Path, processor: Processor
) -> None:
    processor.is_fast_at(precision)
    auto = trained(study(model), "auto", tmp_path)
    named = trained(study(model, precision), "named", tmp_path)
    assert metrics(auto) == metrics(named)
    assert (auto.precision, named.precision) == (f"auto ({precision})", precision)


@pytest.mark.parametrize("select", ["best", "last"])
def test_weights_are_measured_in_the_precision_they_were_trained_in(
    select: str, tmp_path: Path, processor: Processor
) -> None:
    processor.is_fast_at("bf16")
    trial = trained(study(select=select), "moved", tmp_path)
    processor.is_fast_at("fp32")
    kept = load_trained(trial)
    measured = kept.evaluate()
    assert measured == {name: kept.metrics[name] for name in measured}


def test_a_run_that_goes_on_elsewhere_names_both_precisions(
    tmp_path: Path, processor: Processor
) -> None:
    processor.is_fast_at("bf16")
    begun = train_single(study(), "moved", tmp_path)
    assert next(begun).precision == "bf16"
    begun.close()
    processor.is_fast_at("fp32")
    trial = trained(study(), "moved", tmp_path)
    assert [entry.precision for entry in trial.epochs] == ["bf16", "fp32"]
    assert trial.precision == "auto (bf16, fp32)"
