"""Whether one model is better than another: on the same rows (DeLong), and over the same seeds (Student).

The two answer different questions. DeLong: would another test split say the same of these two score arrays? Student:
would other seeds say the same of these two recipes, on this split? A claim needs both.

Source: DeLong, DeLong and Clarke-Pearson, Biometrics 1988; its midrank form of Sun and Xu, IEEE Signal Processing
Letters 2014, equations 4 to 6.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from fieldctr.errors import UserError


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
    return _tested(difference, math.sqrt(variance), stats.norm(), level)


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
    mean, error = float(gap.mean()), float(gap.std(ddof=1)) / math.sqrt(len(gap))
    return _tested(mean, error, stats.t(len(gap) - 1), level)


def _tested(difference: float, error: float, law: Any, level: float) -> Difference:
    """With the interval and the two-sided p of a difference over its error, which follows this law of scipy's."""
    half = float(law.isf((1 - level) / 2)) * error
    p = 2 * float(law.sf(abs(difference) / error)) if error else float(difference == 0)
    return Difference(difference, error, difference - half, difference + half, p)
