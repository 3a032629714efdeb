"""Means, paired differences and intervals, against scipy, by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from samtune.analysis.statistics import (
    cannot_be_told_apart,
    holm,
    mean_interval,
    paired_difference,
    sign_flip_p_value,
    split_error,
)

# Accuracies of five pairs of runs, saved once.
SAM = [0.9567, 0.9600, 0.9533, 0.9633, 0.9567]
SGD = [0.7433, 0.7300, 0.7567, 0.7400, 0.7267]


def test_the_mean_has_scipys_t_interval() -> None:
    found = mean_interval(SAM)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(SAM), scale=stats.sem(SAM))
    assert found.half_width is not None
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(
        (low, high), rel=1e-12
    )
    # By hand: sd 0.003793, over sqrt(5), times 2.776 of the t distribution's table.
    assert found.half_width == pytest.approx(0.003793 / 5**0.5 * 2.776, rel=1e-3)


def test_the_paired_difference_has_scipys_interval_and_p_value() -> None:
    found = paired_difference(SAM, SGD)
    test = stats.ttest_rel(SAM, SGD)
    interval = test.confidence_interval()
    assert found.low == pytest.approx(interval.low, rel=1e-12)
    assert found.high == pytest.approx(interval.high, rel=1e-12)
    assert found.p_value == pytest.approx(test.pvalue, rel=1e-12)
    assert found.mean == pytest.approx(0.21866, abs=1e-9)
    assert found.correlation == pytest.approx(np.corrcoef(SAM, SGD)[0, 1], rel=1e-12)


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_sign_flips_are_all_of_them_as_scipy_has_it(count: int) -> None:
    differences = np.random.default_rng(count).normal(0.5, 1, count)
    test = stats.permutation_test(
        (differences, np.zeros(count)),
        lambda one, other: np.mean(one - other),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert sign_flip_p_value(differences) == pytest.approx(test.pvalue, rel=1e-9)


def test_five_pairs_that_all_gain_are_one_flip_in_sixteen() -> None:
    assert paired_difference(SAM, SGD).p_sign_flip == pytest.approx(2 / 32)


def test_many_pairs_are_flipped_at_random_and_always_the_same_way() -> None:
    differences = np.random.default_rng(1).normal(0.3, 1, 40)
    p = sign_flip_p_value(differences)
    assert p == sign_flip_p_value(differences)
    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.02)


def test_holm_by_hand() -> None:
    # Sorted .01, .03, .04: 3 x .01, 2 x .03, then .04, which may not fall below .06.
    assert holm([0.04, 0.01, None, 0.03]) == pytest.approx([0.06, 0.03, None, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("pairs", "correlation"), [(3, 0.8), (5, 0.0), pytest.param(10, 0.8, marks=pytest.mark.slow)]
)
def test_the_interval_of_a_difference_covers_the_truth_in_95_of_100_studies(
    pairs: int, correlation: float
) -> None:
    random = np.random.default_rng([pairs, round(10 * correlation)])
    covariance = [[1, correlation], [correlation, 1]]
    drawn = random.multivariate_normal([0.3, 0.0], covariance, size=(2000, pairs))
    covered = 0
    for ours, theirs in drawn.transpose(0, 2, 1):
        found = paired_difference(ours, theirs)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.3 <= found.high
    assert 0.93 <= covered / 2000 <= 0.97


def test_the_interval_of_a_mean_covers_the_truth_in_95_of_100_studies() -> None:
    drawn = np.random.default_rng(7).normal(0.9, 0.01, size=(2000, 5))
    found = [mean_interval(list(x)) for x in drawn]
    covered = sum(abs(m.mean - 0.9) <= (m.half_width or 0) for m in found)
    assert 0.93 <= covered / 2000 <= 0.97


def test_the_interval_covers_accuracies_of_few_images_too() -> None:
    # 300 images, 90 %, and no difference: counts, with ties, as studies have them.
    drawn = np.random.default_rng(3).binomial(300, 0.9, size=(2000, 2, 5)) / 300
    found = [paired_difference(a, b) for a, b in drawn]
    known = [f for f in found if f.half_width is not None]
    covered = sum(abs(f.mean) <= (f.half_width or 0) for f in known)
    assert 0.93 <= covered / len(known) <= 0.97


def test_one_pair_has_a_difference_and_no_interval() -> None:
    found = paired_difference([0.9], [0.8])
    assert found.mean == pytest.approx(0.1)
    assert (found.half_width, found.p_value, found.low) == (None, None, None)
    assert found.note == "one pair shows no spread"
    assert mean_interval([0.9]).half_width is None


@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_equal_differences_have_no_interval_however_they_are_rounded(gap: float) -> None:
    theirs = [0.7, 0.73, 0.71]
    found = paired_difference([t + gap for t in theirs], theirs)
    assert found.mean == pytest.approx(gap)
    assert (found.half_width, found.p_value) == (None, None)
    assert "the same in all 3 pairs" in found.note


def test_a_split_leaves_the_error_of_a_binomial() -> None:
    # 1.96 * sqrt(0.96 * 0.04 / 10,000)
    assert split_error(0.96, 10_000) == pytest.approx(0.0038, abs=1e-4)
    assert split_error(1.0, 300) > 0.005  # all right says little about the next 300


def test_what_pairs_do_not_tell_apart() -> None:
    near = [s + e for s, e in zip(SAM, [0.002, -0.004, 0.001, 0.003, -0.003], strict=True)]
    assert cannot_be_told_apart({"a": SAM, "b": SGD, "c": near}) == ["a", "c"]
    assert cannot_be_told_apart({"a": SAM}) == ["a"]
    assert cannot_be_told_apart({"a": [0.9], "b": [0.5]}) == ["a", "b"]  # one seed tells nothing


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0, 2.0], [1.0]), ([np.nan], [1.0])])
def test_what_is_no_pair_is_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match="pairs need|finite numbers"):
        paired_difference(ours, theirs)
