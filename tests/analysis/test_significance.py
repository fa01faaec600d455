"""DeLong and Student against naive twins and properties."""

import math

import numpy as np
import pytest

from fieldctr.analysis.significance import delong, paired
from fieldctr.errors import UserError
from fieldctr.ranking import auc


def scores(seed: int, rows: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and two correlated score arrays, the second better."""
    rng = np.random.default_rng(seed)
    label = (rng.random(rows) < 0.3).astype(np.float32)
    label[:2] = (0, 1)
    shared = rng.normal(size=rows) + 0.5 * label
    a, b = shared + rng.normal(size=rows), shared + 0.3 * label + rng.normal(size=rows)
    return (label, np.round(a), np.round(b)) if ties else (label, a, b)


def kernel(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    """(clicks, non-clicks) 1 where the click is above, half for a tie."""
    return (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_delong_is_the_jackknife_of_clicks_and_non_clicks(seed: int, ties: bool) -> None:
    """Leave out each click, then each non-click: their pseudo-variances add up to DeLong's, exactly."""
    label, a, b = scores(seed, 60, ties=ties)
    clicked = label > 0
    gap = kernel(b[clicked], b[~clicked]) - kernel(a[clicked], a[~clicked])
    clicks, others = gap.shape
    without_click = np.array([np.delete(gap, i, axis=0).mean() for i in range(clicks)])
    without_other = np.array([np.delete(gap, j, axis=1).mean() for j in range(others)])
    variance = sum(
        (n - 1) / n * ((left - left.mean()) ** 2).sum()
        for n, left in ((clicks, without_click), (others, without_other))
    )
    found = delong(label, a, b)
    assert abs(found.difference - (auc(label, b) - auc(label, a))) < 1e-12
    assert abs(found.error**2 - variance) < 1e-10


def test_delong_is_antisymmetric_and_blind_to_increasing_functions() -> None:
    label, a, b = scores(4, 200, ties=True)
    one, other = delong(label, a, b), delong(label, b, a)
    assert one.difference == pytest.approx(-other.difference)
    assert (one.error, one.p) == pytest.approx((other.error, other.p))
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert delong(label, np.exp(a), 3 * b - 7) == pytest.approx(one)


def test_equal_scores_differ_by_nothing() -> None:
    label, a, _ = scores(5, 50, ties=False)
    assert delong(label, a, a.copy()) == (0, 0, 0, 0, 1)


def test_delong_covers_the_truth_as_often_as_it_says() -> None:
    """Two equally good models on 300 fresh splits: the 90 % interval misses zero in about a tenth."""
    rng, missed = np.random.default_rng(6), 0
    for _ in range(300):
        label = (rng.random(400) < 0.4).astype(np.float32)
        shared = rng.normal(size=400) + label
        found = delong(label, shared + rng.normal(size=400), shared + rng.normal(size=400), level=0.9)
        missed += not found.low <= 0 <= found.high
        assert (found.p < 0.1) == (not found.low <= 0 <= found.high)
    assert 15 <= missed <= 48  # 30 expected, sd 5.2


def test_intervals_are_those_of_printed_tables() -> None:
    """Two-sided 95 % and 99 %, from any printed table: t for few seeds, 1.96 standard errors for rows."""
    for freedom, usual, strict in (
        (1, 12.7062, 63.6567),
        (4, 2.7764, 4.6041),
        (9, 2.2622, 3.2498),
        (100, 1.9840, 2.6259),
    ):
        gaps = [float(i) for i in range(freedom + 1)]
        for level, wide in ((0.95, usual), (0.99, strict)):
            found = paired([0.0] * len(gaps), gaps, level=level)
            assert (found.high - found.low) / 2 == pytest.approx(wide * found.error, rel=2e-5)
    found = delong(*scores(9, 300, ties=False))
    assert (found.high - found.low) / 2 == pytest.approx(1.959964 * found.error, rel=1e-6)


def test_a_paired_difference_is_the_one_sample_t_of_the_gaps() -> None:
    a, b = [0.7282, 0.7286, 0.7280, 0.7284, 0.7281], [0.7305, 0.7310, 0.7299, 0.7301, 0.7320]
    found = paired(a, b)
    gaps = [y - x for x, y in zip(a, b, strict=True)]
    mean = sum(gaps) / 5
    error = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / 4 / 5)
    assert found.difference == pytest.approx(mean)
    assert found.error == pytest.approx(error)
    assert (found.low, found.high) == pytest.approx((mean - 2.776445 * error, mean + 2.776445 * error))
    t = mean / error
    assert found.p == pytest.approx(
        1 - t / math.sqrt(4 + t * t) * (1 + 2 / (4 + t * t)), rel=1e-6
    )  # Student's law of 4
    at_edge = paired([0.0] * 5, [gap - found.low for gap in gaps])
    assert at_edge.p == pytest.approx(0.05)


def test_pairing_removes_what_seeds_share() -> None:
    rng = np.random.default_rng(7)
    shared, noise = rng.normal(size=8), 0.01 * rng.normal(size=8)
    together = paired(list(shared), list(shared + 0.05 + noise))
    apart = paired(list(shared), list((shared + 0.05 + noise)[::-1]))
    assert together.error < 0.02 < apart.error
    assert together.p < 0.01


def test_what_cannot_be_compared_is_refused() -> None:
    label, a, b = scores(8, 20, ties=False)
    with pytest.raises(UserError, match="not the same rows"):
        delong(label, a[:-1], b)
    with pytest.raises(UserError, match="clicks and non-clicks"):
        delong(np.ones(20), a, b)
    for pair in (([0.7], [0.8]), ([0.7, 0.8], [0.7])):
        with pytest.raises(UserError, match="same seeds"):
            paired(*pair)
