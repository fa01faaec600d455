"""Intervals, p, Holm, detectable effects and equivalence, against scipy, statsmodels and printed tables."""

import numpy as np
import pytest
from scipy import stats

from fieldctr.analysis.comparison.doubt import (
    Error,
    detectable,
    equivalence,
    holm,
    over_seeds,
    together,
    with_interval,
)
from fieldctr.errors import UserError

A, B = [0.7282, 0.7286, 0.7280, 0.7284, 0.7281], [0.7305, 0.7310, 0.7299, 0.7301, 0.7320]


def test_seeds_alone_are_the_paired_t_test_of_scipy() -> None:
    found = with_interval(float(np.mean(B) - np.mean(A)), over_seeds(A, B), level=0.95)
    expected = stats.ttest_rel(B, A)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_intervals_are_those_of_printed_tables() -> None:
    """Two-sided 95 % and 99 %: Student's t for few degrees of freedom, 1.96 for many."""
    for freedom, usual, strict in (
        (1, 12.7062, 63.6567),
        (4, 2.7764, 4.6041),
        (9, 2.2622, 3.2498),
        (100, 1.9840, 2.6259),
        (1e9, 1.959964, 2.575829),
    ):
        for level, wide in ((0.95, usual), (0.99, strict)):
            found = with_interval(0.5, Error(0.1, freedom), level=level)
            assert (found.high - found.low) / 2 == pytest.approx(0.1 * wide, rel=2e-5)


def test_p_is_at_its_level_where_the_interval_touches_zero() -> None:
    found = with_interval(0.3, Error(0.2, 7), level=0.9)
    assert with_interval(0.3 - found.low, Error(0.2, 7), level=0.9).p == pytest.approx(0.1)


def test_two_errors_add_as_welch_and_satterthwaite_say() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=6), 3 * rng.normal(size=9)
    errors = [Error(float(one.std(ddof=1)) / len(one) ** 0.5, len(one) - 1) for one in (x, y)]
    found, expected = together(errors), stats.ttest_ind(x, y, equal_var=False)
    assert found.freedom == pytest.approx(expected.df)
    assert (x.mean() - y.mean()) / found.error == pytest.approx(expected.statistic)
    assert together([Error(0.0, 4), Error(0.2, 9)]) == (0.2, pytest.approx(9))
    assert together([Error(0.0, 4), Error(0.0, 9)]) == (0.0, 4)


def test_pairing_removes_what_seeds_share() -> None:
    rng = np.random.default_rng(7)
    shared, noise = rng.normal(size=8), 0.01 * rng.normal(size=8)
    other = shared + 0.05 + noise
    assert over_seeds(list(shared), list(other)).error < 0.02 < over_seeds(list(shared), list(other[::-1])).error


def test_equal_results_differ_by_nothing() -> None:
    assert with_interval(0.0, over_seeds(A, A), level=0.95)[:5] == (0, 0, 0, 0, 1)


def test_seeds_that_are_not_shared_are_refused() -> None:
    for pair in (([0.7], [0.8]), ([0.7, 0.8], [0.7])):
        with pytest.raises(UserError, match="same seeds"):
            over_seeds(*pair)


def test_holm_is_that_of_statsmodels() -> None:
    multitest = pytest.importorskip(
        "statsmodels.stats.multitest", reason="statsmodels, an oracle of the dev extra, is not installed"
    )
    rng = np.random.default_rng(1)
    for size in (1, 2, 7, 20):
        p = [*rng.random(size - 1) ** 3, 0.01]
        assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])
    assert holm([]) == []


def test_equivalence_is_the_bound_at_which_two_one_sided_tests_turn() -> None:
    weightstats = pytest.importorskip(
        "statsmodels.stats.weightstats", reason="statsmodels, an oracle of the dev extra, is not installed"
    )
    gap = float(np.mean(B) - np.mean(A))
    bound = equivalence(gap, over_seeds(A, B), level=0.95)
    for factor, sure in ((0.999, False), (1.001, True)):
        p = weightstats.ttost_paired(np.array(B), np.array(A), -factor * bound, factor * bound)[0]
        assert (p < 0.05) == sure


@pytest.mark.parametrize("seeds", [4, 10, 1000])
def test_a_detectable_effect_is_found_with_its_power(seeds: int) -> None:
    """By the non-central t of scipy; for few seeds the sum of quantiles is a little small."""
    error = Error(0.01, seeds - 1)
    effect = detectable(error, level=0.95)
    power = stats.nct(seeds - 1, effect / error.error).sf(stats.t(seeds - 1).isf(0.025))
    assert 0.78 < power < 0.81
