"""Whether one model is better than another: on the same rows (DeLong), and over the same seeds (Student).

The two answer different questions. DeLong: would another test split say the same of these two score arrays? Student:
would other seeds say the same of these two recipes, on this split? A claim needs both.

Source: DeLong, DeLong and Clarke-Pearson, Biometrics 1988; its midrank form of Sun and Xu, IEEE Signal Processing
Letters 2014, equations 4 to 6.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fieldctr.errors import UserError

BETA_TERMS, SMALL = 300, 1e-300  # of the continued fraction


class Difference(NamedTuple):
    """b minus a, with its standard error, its interval and the two-sided p of no difference."""

    difference: float
    error: float
    low: float
    high: float
    p: float


def delong(label: np.ndarray, a: np.ndarray, b: np.ndarray, *, level: float = 0.95) -> Difference:
    """AUC of scores b (n,) minus that of a (n,) on one label array (n,), with its sampling error over rows.

    Sorting is all it costs. UserError when arrays differ in length or the labels hold one class only.
    """
    if not len(label) == len(a) == len(b):
        raise UserError(f"scores of {len(a):,} and {len(b):,} rows, labels of {len(label):,}: not the same rows")
    clicked = label > 0.5
    if clicked.all() or not clicked.any():
        raise UserError(f"AUC needs clicks and non-clicks, got {int(clicked.sum())} of {len(label)}: use another split")
    first, second = placements(clicked, a), placements(clicked, b)
    difference = float(second[0].mean() - first[0].mean())
    variance = sum(
        float((q - p).var(ddof=1)) / len(p) if len(p) > 1 else 0.0 for p, q in zip(first, second, strict=True)
    )
    return _normal(difference, math.sqrt(variance), level)


def placements(clicked: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per click the share of non-clicks below it, and per non-click the share of clicks above it; ties count half.

    The mean of either is the AUC; their variances, each over its number of rows, add to the AUC's variance.
    """
    positive, negative = score[clicked], score[~clicked]
    return _share_below(positive, negative), 1 - _share_below(negative, positive)


def _share_below(x: np.ndarray, others: np.ndarray) -> np.ndarray:
    ordered = np.sort(others)
    return (np.searchsorted(ordered, x, "left") + np.searchsorted(ordered, x, "right")) / (2 * len(others))


def paired(a: Sequence[float], b: Sequence[float], *, level: float = 0.95) -> Difference:
    """Mean of b minus a over seeds that both share, in the same order; Student's t. UserError below two seeds."""
    if len(a) != len(b) or len(a) < 2:
        raise UserError(f"got {len(a)} and {len(b)} results: a paired difference needs the same seeds, two at least")
    gap = np.asarray(b, np.float64) - np.asarray(a, np.float64)
    mean, error, freedom = float(gap.mean()), float(gap.std(ddof=1)) / math.sqrt(len(gap)), len(gap) - 1
    half = student_quantile((1 + level) / 2, freedom) * error
    p = 2 * student_tail(abs(mean) / error, freedom) if error else float(mean == 0)
    return Difference(mean, error, mean - half, mean + half, p)


def _normal(difference: float, error: float, level: float) -> Difference:
    half = _quantile(lambda x: 0.5 * math.erfc(x / math.sqrt(2)), (1 - level) / 2) * error
    p = math.erfc(abs(difference) / error / math.sqrt(2)) if error else float(difference == 0)
    return Difference(difference, error, difference - half, difference + half, p)


def student_quantile(q: float, freedom: int) -> float:
    """The t that a Student variable stays below with probability q > 0.5."""
    return _quantile(lambda t: student_tail(t, freedom), 1 - q)


def student_tail(t: float, freedom: int) -> float:
    """Probability that a Student variable exceeds t >= 0: half the incomplete beta I_x(freedom/2, 1/2)."""
    return 0.5 * incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised I_x(a, b) by its continued fraction (Lentz's method), to about 1e-14."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1 - incomplete_beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    c, d = 1.0, 1 / _off_zero(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, BETA_TERMS):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / _off_zero(1 + step * d), _off_zero(1 + step / c)
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * fraction / a


def _off_zero(x: float) -> float:
    return x if abs(x) > SMALL else SMALL


def _quantile(tail: Callable[[float], float], p: float) -> float:
    """Where a falling tail probability reaches p: bisection to machine precision."""
    low, high = 0.0, 1.0
    while tail(high) > p:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle) > p else (low, middle)
    return high
