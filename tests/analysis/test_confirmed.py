"""The table of a confirmation and its sentence, from trials and scores written by hand."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from samtune.analysis.confirmed import Confirmed, confirmed
from samtune.analysis.statistics import Difference, paired_difference
from samtune.analysis.verdict import claim_of, sentence
from samtune.config.confirm import ConfirmConfig, Finalist, TunedBaseline
from samtune.config.schema import StudyConfig
from samtune.report import confirmed as shown

Make = Callable[..., StudyConfig]
SEEDS = [1, 2, 3, 4, 5]
SAM = [0.956, 0.960, 0.953, 0.963, 0.957]
SGD = [0.743, 0.730, 0.757, 0.740, 0.727]
LONG = [0.752, 0.741, 0.760, 0.749, 0.735]


def _config(
    make: Make,
    *finalists: Finalist,
    metric: str = "val_accuracy",
    tuned: TunedBaseline | None = None,
) -> StudyConfig:
    confirm = ConfirmConfig(
        study="tiny", study_id="1", top=3, seeds=SEEDS, finalists=list(finalists), tuned=tuned
    )
    config = make()
    mode = "min" if metric == "val_loss" else "max"
    study = config.study.model_copy(update={"metric": metric, "mode": mode})
    return config.model_copy(update={"confirm": confirm, "study": study, "search_space": {}})


def _finalist(key: str, rho: float, width: int = 1, epochs: int = 6) -> Finalist:
    alone = {"sam.rho": 0.0, "model.width_factor": width}
    return Finalist(
        trial=key,
        values={"sam.rho": rho, "model.width_factor": width},
        equal_epochs=alone,
        equal_compute=alone if epochs == 3 else {**alone, "training.epochs": epochs},
    )


def _told(
    config: StudyConfig, scores: dict[tuple[float, ...], list[float | None]], **settings: Any
) -> Confirmed:
    """The table where each setting (rho, width, epochs, lr if any) has these scores by seed."""
    assert config.confirm is not None
    trials, by_key = [], {}
    for i, values in enumerate(config.confirm.runs, 1):
        epochs = values.get("training.epochs", 3)
        lr = [values["optimizer.lr"]] if "optimizer.lr" in values else []
        at = (values["sam.rho"], values["model.width_factor"], epochs, *lr)
        score = scores[at][SEEDS.index(values["training.seed"])]
        key = f"t{i:04d}"
        trials.append(
            SimpleNamespace(key=key, values=values, value=settings.get("val", {}).get(at))
        )
        if score is not None:
            by_key[key] = score
    return confirmed(config, trials, by_key, images=300)  # type: ignore[arg-type]


def test_equal_settings_are_trained_once_and_seeds_stay_together(study_config: Make) -> None:
    config = _config(study_config, _finalist("t0004", 0.4), _finalist("t0009", 0.2))
    assert config.confirm is not None
    runs = config.confirm.runs
    assert len(runs) == config.wanted_trials == 5 * 4  # two finalists share both baselines
    assert [run["training.seed"] for run in runs[:5]] == [1, 1, 1, 1, 2]


def test_the_sentence_claims_both_gains_with_their_intervals(study_config: Make) -> None:
    config = _config(study_config, _finalist("t0004", 0.41))
    found = _told(config, {(0.41, 1, 3): [*SAM], (0.0, 1, 3): [*SGD], (0.0, 1, 6): [*LONG]})
    equal, double = (paired_difference(SAM, other) for other in (SGD, LONG))
    assert found.verdict == (
        f"SAM with rho 0.41 gains {100 * equal.mean:.1f} points +- "
        f"{100 * (equal.half_width or 0):.1f} over SGD at equal epochs, "
        f"{100 * double.mean:.1f} +- {100 * (double.half_width or 0):.1f} at equal compute, "
        "on 300 test images it never saw."
    )
    assert found.claims_gain
    (row,) = found.rows
    assert [b.epochs for b in row.baselines] == [3, 6]
    assert [b.gain for b in row.baselines] == [equal, double]
    assert row.split_error == pytest.approx(0.0235, abs=1e-3)  # 1.96 sqrt(.958 * .042 / 300)


def test_a_smaller_loss_is_a_gain(study_config: Make) -> None:
    config = _config(study_config, _finalist("t0004", 0.4), metric="val_loss")
    scores = {(0.4, 1, 3): [*SGD], (0.0, 1, 3): [*SAM], (0.0, 1, 6): [*SAM]}
    found = _told(config, scores)
    assert found.rows[0].split_error is None
    assert found.claims_gain
    assert "gains 0.2184 in test_loss +- " in found.verdict


def test_the_verdict_is_on_the_best_by_validation_and_not_by_the_test_split(
    study_config: Make,
) -> None:
    config = _config(study_config, _finalist("t0004", 0.4), _finalist("t0009", 0.2))
    better = [s + 0.02 for s in SAM]
    scores = {(0.4, 1, 3): better, (0.2, 1, 3): [*SAM], (0.0, 1, 3): [*SGD], (0.0, 1, 6): [*LONG]}
    found = _told(config, scores, val={(0.4, 1, 3): 0.90, (0.2, 1, 3): 0.91})
    assert found.chosen == "t0009"
    assert found.alike == ["t0004", "t0009"]  # equal differences show no spread to tell by
    noisy = [s + e for s, e in zip(SGD, [0.01, -0.01, 0.0, 0.02, -0.02], strict=True)]
    found = _told(config, scores | {(0.2, 1, 3): [*noisy]}, val={(0.4, 1, 3): 0.9})
    assert (found.chosen, found.alike) == ("t0004", ["t0004"])


def test_p_values_are_adjusted_over_the_finalists(study_config: Make) -> None:
    config = _config(study_config, _finalist("t0004", 0.4), _finalist("t0009", 0.2))
    near = [s + e for s, e in zip(SGD, [0.01, -0.01, 0.0, 0.02, -0.01], strict=True)]
    scores = {(0.4, 1, 3): [*SAM], (0.2, 1, 3): near, (0.0, 1, 3): [*SGD], (0.0, 1, 6): [*LONG]}
    found = _told(config, scores)
    first, second = (row.baselines[0] for row in found.rows)
    assert first.gain is not None
    assert second.gain is not None
    assert first.p_holm == pytest.approx(2 * (first.gain.p_value or 0))
    assert second.p_holm == pytest.approx(second.gain.p_value)


def test_one_gradient_a_step_makes_one_baseline_of_two(study_config: Make) -> None:
    config = _config(study_config, _finalist("t0004", 0.4, epochs=3))
    found = _told(config, {(0.4, 1, 3): [*SAM], (0.0, 1, 3): [*SGD]})
    assert "over SGD at equal epochs and compute, on 300" in found.verdict


def test_a_tuned_baseline_is_one_more_at_equal_epochs(study_config: Make) -> None:
    settings = {"sam.rho": 0.0, "model.width_factor": 1, "optimizer.lr": 0.02}
    tuned = TunedBaseline(study="tiny-baseline", trial="t0007", trials=24, settings=settings)
    config = _config(study_config, _finalist("t0004", 0.4), _finalist("t0009", 0.2), tuned=tuned)
    assert config.confirm is not None
    assert len(config.confirm.runs) == 5 * 5  # both finalists share all three baselines
    better = [s + e for s, e in zip(SAM, [0.02, 0.01, 0.02, 0.01, 0.02], strict=True)]
    alone = {(0.0, 1, 3): [*SGD], (0.0, 1, 6): [*LONG], (0.0, 1, 3, 0.02): better}
    found = _told(config, {(0.4, 1, 3): [*SAM], (0.2, 1, 3): [*SAM], **alone})
    last = found.rows[0].baselines[-1]
    gain = paired_difference(SAM, better)
    assert (last.equal, last.epochs) == ("equal epochs when tuned by 24 trials", 3)
    assert (last.gain, last.claim) == (gain, "loss")
    assert last.p_holm == pytest.approx(min(1.0, 2 * (gain.p_value or 0)))
    assert not found.claims_gain
    assert found.verdict.endswith(
        f"but it loses {-100 * gain.mean:.1f} points +- {100 * (gain.half_width or 0):.1f} against "
        "SGD at equal epochs when tuned by 24 trials, on 300 test images it never saw."
    )
    assert found.tuned == "width_factor 1, lr 0.02: t0007 of tiny-baseline"
    assert shown.settings(found)[-1] == ("tuned alone", found.tuned)
    assert shown.rows(found)[2][2] == "equal epochs when tuned by 24 trials (3)"


def test_runs_without_a_score_are_left_out_in_pairs_and_said(study_config: Make) -> None:
    config = _config(study_config, _finalist("t0004", 0.4))
    lost: list[float | None] = [SGD[0], None, *SGD[2:]]
    found = _told(config, {(0.4, 1, 3): [*SAM], (0.0, 1, 3): lost, (0.0, 1, 6): [*LONG]})
    gain = found.rows[0].baselines[0].gain
    assert gain is not None
    assert gain == paired_difference([SAM[0], *SAM[2:]], [SGD[0], *SGD[2:]])
    assert found.verdict.endswith("Only 4 of 5 pairs of runs ended well.")
    gone = _told(config, {(0.4, 1, 3): [None] * 5, (0.0, 1, 3): [*SGD], (0.0, 1, 6): [*LONG]})
    assert not gone.claims_gain
    assert gone.verdict.startswith("Whether SAM with rho 0.4 gains over SGD cannot be told: no ")


WIDE = Difference(5, 0.003, 0.009, 0.4, 0.4, 0.1)
UP = Difference(5, 0.021, 0.009, 0.01, 0.06, 0.1)
DOWN = Difference(5, -0.021, 0.009, 0.01, 0.06, 0.1)
SAME = Difference(5, 0.01, note="the difference is the same in all 5 pairs")


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        (
            [WIDE, WIDE],
            "No gain of SAM with rho 0.3 over SGD can be claimed: +0.3 points +- 0.9 at equal "
            "epochs, +0.3 +- 0.9 at equal compute, on 300 test images it never saw.",
        ),
        (
            [UP, WIDE],
            "SAM with rho 0.3 gains 2.1 points +- 0.9 over SGD at equal epochs, but no gain can be "
            "claimed: +0.3 points +- 0.9 at equal compute, on 300 test images it never saw.",
        ),
        (
            [UP, DOWN],
            "SAM with rho 0.3 gains 2.1 points +- 0.9 over SGD at equal epochs, but it loses 2.1 "
            "points +- 0.9 against SGD at equal compute, on 300 test images it never saw.",
        ),
        (
            [SAME, SAME],
            "Whether SAM with rho 0.3 gains over SGD cannot be told: +1.0 points (the difference "
            "is the same in all 5 pairs) at equal epochs, +1.0 (the difference is the same in all "
            "5 pairs) at equal compute, on 300 test images it never saw.",
        ),
    ],
)
def test_the_sentence_says_what_the_intervals_hold(gains: list[Difference], expected: str) -> None:
    by_baseline = dict(zip(("equal epochs", "equal compute"), gains, strict=True))
    about = {"rho": 0.3, "optimizer": "sgd", "metric": "test_accuracy"}
    told = sentence(by_baseline, is_share=True, images=300, pairs=5, **about)  # type: ignore[arg-type]
    assert told == expected


def test_without_an_effect_two_studies_of_twenty_at_most_claim_a_gain() -> None:
    """Accuracies of 300 images as seeds scatter them, around the same truth for SAM and SGD."""
    random = np.random.default_rng(0)
    claims = []
    for _ in range(20):
        truth = np.clip(random.normal(0.97, 0.004, size=(2, 5)), 0, 1)
        ours, theirs = random.binomial(300, truth) / 300
        claims.append(claim_of(paired_difference(ours, theirs)))
    assert claims.count("gain") <= 2
    assert claims.count("loss") <= 2
