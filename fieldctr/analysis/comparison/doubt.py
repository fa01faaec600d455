"""From a difference and the errors of its two sources of doubt to an interval, p, and what could have been found.

Rows: would another sample of the test split's users, days or rows say the same of these very runs? Seeds: would other
seeds say the same of these two recipes, on these rows? Both variances add up for the question that a claim is about:
another test sample and another seed. The degrees of freedom of the sum are those of Welch and Satterthwaite.

What the seeds add to the doubt about rows is counted on both sides, as a seed's difference is itself measured on the
test rows: intervals are a little wide, never narrow.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's law and its inverse: a fiftieth of the time of stats.t

from fieldctr.errors import UserError

POWER = 0.8  # of a minimal detectable effect


class Error(NamedTuple):
    """A standard error and its degrees of freedom."""

    error: float
    freedom: float


class Difference(NamedTuple):
    """A difference with its standard error, its interval and the two-sided p of no difference."""

    difference: float
    error: float
    low: float
    high: float
    p: float
    freedom: float


def over_seeds(a: Sequence[float], b: Sequence[float]) -> Error:
    """The error of the mean of b minus a over seeds that both share, in the same order. UserError below two seeds."""
    if len(a) != len(b) or len(a) < 2:
        raise UserError(f"got {len(a)} and {len(b)} results: a paired difference needs the same seeds, two at least")
    gap = np.asarray(b, np.float64) - np.asarray(a, np.float64)
    return Error(float(gap.std(ddof=1)) / math.sqrt(len(gap)), len(gap) - 1)


def together(errors: Sequence[Error]) -> Error:
    """Of a sum of independent terms with these errors."""
    variances = [one.error**2 for one in errors]
    total = sum(variances)
    if total == 0:
        return Error(0.0, min(one.freedom for one in errors))
    spread = sum(variance**2 / one.freedom for variance, one in zip(variances, errors, strict=True))
    return Error(math.sqrt(total), total**2 / spread)


def with_interval(difference: float, error: Error, *, level: float = 0.95) -> Difference:
    """A difference with this error, by Student's law."""
    half = float(stdtrit(error.freedom, (1 + level) / 2)) * error.error
    p = 2 * float(stdtr(error.freedom, -abs(difference) / error.error)) if error.error else float(difference == 0)
    return Difference(difference, error.error, difference - half, difference + half, p, error.freedom)


def detectable(error: Error, *, level: float = 0.95, power: float = POWER) -> float:
    """The smallest true difference that a two-sided test at 1 - level finds with this power."""
    return float(stdtrit(error.freedom, (1 + level) / 2) + stdtrit(error.freedom, power)) * error.error


def equivalence(difference: float, error: Error, *, level: float = 0.95) -> float:
    """The smallest bound for which two one-sided tests (TOST) say that no true difference is larger, either way."""
    return abs(difference) + float(stdtrit(error.freedom, level)) * error.error


def holm(p: Sequence[float]) -> list[float]:
    """p adjusted for the family of all of these tests: Holm, Scandinavian Journal of Statistics 1979."""
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted
