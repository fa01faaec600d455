"""What each row adds to a metric: the derivative of the metric by the row's weight.

The sum of these effects over the rows of a cluster is what the metric owes to that cluster, up to terms that vanish
with the number of clusters; the sum of their squares over clusters is the metric's variance (the infinitesimal
jackknife, or sandwich). AUC gives DeLong's placements, LogLoss the losses around their mean, NE the delta method of a
ratio, gAUC the ratio estimator over users. ECE is taken with its bins, and the sign of each bin's gap, as they are:
where a gap is within its noise, its error comes out too large, never too small.

Source: DeLong, DeLong and Clarke-Pearson, Biometrics 1988; Jaeckel, Bell Laboratories memorandum 1972.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fieldctr.errors import UserError

ECE_BINS = 15
SIGN, FLIP = np.uint32(0x80000000), np.uint32(0xFFFFFFFF)


class Rows(NamedTuple):
    """The rows that arms are compared on."""

    clicked: np.ndarray  # (n,) bool
    weight: np.ndarray  # (n,) float64, ones where rows count once; all above 0
    group: np.ndarray | None = None  # (n,) codes of users for gAUC from 1, 0 for none
    cluster: np.ndarray | None = None  # (n,) codes of what is sampled as a whole; None: each row alone

    def take(self, rows: np.ndarray) -> "Rows":
        """Some of them, by a mask or by their numbers."""
        group, cluster = (None if array is None else array[rows] for array in (self.group, self.cluster))
        return Rows(self.clicked[rows], self.weight[rows], group, cluster)


class Effects(NamedTuple):
    """A metric of one run, and what each row adds to it."""

    value: float
    row: np.ndarray  # (n,) float64


class Metric(NamedTuple):
    """How a metric is computed and spoken of."""

    name: str
    better: int  # 1 where higher is better, -1 where lower is
    effects: Callable[[Rows, np.ndarray], Effects]  # of float32 logits (n,)
    strata: Callable[[Rows], list[np.ndarray]]  # masks of rows that are drawn apart from each other


def auc(rows: Rows, logit: np.ndarray) -> Effects:
    """A click's placement is the share of non-clicks below it, a non-click's the share of clicks above it."""
    place = placements(rows.clicked, logit, None, rows.weight)
    clicks = rows.weight * rows.clicked
    value = float((clicks * place.share).sum() / clicks.sum())
    return Effects(value, rows.weight * (place.share - value) / place.mass)


def gauc(rows: Rows, logit: np.ndarray) -> Effects:
    """Users with both classes, by their impressions: a ratio of two sums over users."""
    assert rows.group is not None
    used = with_both_classes(rows)
    clicked, weight, group = rows.clicked[used], rows.weight[used], rows.group[used]
    place = placements(clicked, logit[used], group, weight)
    impressions = np.bincount(group, weight)[group]
    of_user = np.bincount(group, weight * clicked * place.share)[group] / np.bincount(group, weight * clicked)[group]
    total = weight.sum()
    value = float((weight * of_user).sum() / total)
    row = np.zeros(len(logit))
    row[used] = weight * (impressions * (place.share - of_user) / place.mass + of_user - value) / total
    return Effects(value, row)


def logloss(rows: Rows, logit: np.ndarray) -> Effects:
    """The mean of the losses, in nats."""
    return _mean(_losses(rows, logit), rows.weight)


def ne(rows: Rows, logit: np.ndarray) -> Effects:
    """LogLoss over the entropy of the click rate, which varies with the rows as well."""
    loss, rate = logloss(rows, logit), _mean(rows.clicked.astype(np.float64), rows.weight)
    p = rate.value
    entropy = -(p * np.log(p) + (1 - p) * np.log1p(-p))
    slope = np.log1p(-p) - np.log(p)  # of the entropy by the rate
    value = loss.value / entropy
    return Effects(float(value), (loss.row - value * slope * rate.row) / entropy)


def ece(rows: Rows, logit: np.ndarray) -> Effects:
    """Mean gap of 15 bins of equal mass, between predicted and observed rate, by the bins' mass."""
    order = np.argsort(logit, kind="stable")
    mass = np.cumsum(rows.weight[order])
    starts = np.searchsorted(mass, np.arange(1, ECE_BINS) * mass[-1] / ECE_BINS, "right")
    bins = np.searchsorted(logit[order][starts], logit, "right")
    gap = 0.5 * (1 + np.tanh(0.5 * logit.astype(np.float64))) - rows.clicked
    signs = np.sign(np.bincount(bins, rows.weight * gap))
    return _mean(signs[bins] * gap, rows.weight)


def _losses(rows: Rows, logit: np.ndarray) -> np.ndarray:
    z = logit.astype(np.float64)
    return np.logaddexp(0, z) - rows.clicked * z


def _mean(values: np.ndarray, weight: np.ndarray) -> Effects:
    total = weight.sum()
    mean = float((weight * values).sum() / total)
    return Effects(mean, weight * (values - mean) / total)


class Placements(NamedTuple):
    """Where each row stands among those of the other class in its group."""

    share: np.ndarray  # (n,) of the other class by weight, on whose right side the row is; ties count half
    mass: np.ndarray  # (n,) sum of the weights of its own class in its group


def placements(clicked: np.ndarray, logit: np.ndarray, group: np.ndarray | None, weight: np.ndarray) -> Placements:
    """One sort by group and logit. Each group must have both classes."""
    key = _ordered_bits(logit)
    if group is not None:
        key = group.astype(np.uint64) << np.uint64(32) | key
    order = np.argsort(key)
    key, click = key[order], clicked[order]
    mass = weight[order]
    ties = _starts(key)  # runs of one group and one logit
    firsts = np.zeros(1, np.int64) if group is None else np.searchsorted(ties, _starts(key >> np.uint64(32)))
    runs = np.diff(firsts, append=len(ties))  # of each group
    clicks, others = np.add.reduceat(mass * click, ties), np.add.reduceat(mass * ~click, ties)
    all_clicks, all_others = (np.repeat(np.add.reduceat(part, firsts), runs) for part in (clicks, others))
    below = (_before(others, firsts, runs) + others / 2) / all_others
    above = 1 - (_before(clicks, firsts, runs) + clicks / 2) / all_clicks
    lengths = np.diff(ties, append=len(key))
    share, own = np.empty(len(key)), np.empty(len(key))
    share[order] = np.where(click, np.repeat(below, lengths), np.repeat(above, lengths))
    own[order] = np.where(click, np.repeat(all_clicks, lengths), np.repeat(all_others, lengths))
    return Placements(share, own)


def _before(values: np.ndarray, firsts: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """The sum of the values before each, within its group."""
    before = np.cumsum(values) - values
    return before - np.repeat(before[firsts], runs)


def _starts(values: np.ndarray) -> np.ndarray:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))


def _ordered_bits(logit: np.ndarray) -> np.ndarray:
    """Unsigned integers in the order of float32 logits."""
    bits = (logit.astype(np.float32) + np.float32(0)).view(np.uint32)  # + 0 makes -0.0 and 0.0 one score
    return bits ^ np.where(bits & SIGN, FLIP, SIGN)


def with_both_classes(rows: Rows) -> np.ndarray:
    """A mask of the rows whose user has clicks and non-clicks; UserError where no user has."""
    assert rows.group is not None
    size = int(rows.group.max()) + 1
    clicks = np.bincount(rows.group[rows.clicked], minlength=size) > 0
    others = np.bincount(rows.group[~rows.clicked], minlength=size) > 0
    both = clicks & others
    both[0] = False  # nobody
    if not both.any():
        raise UserError("gAUC needs a user with clicks and non-clicks, got none: leave gauc out of metrics")
    return both[rows.group]


def _all(rows: Rows) -> list[np.ndarray]:
    return [np.ones(len(rows.clicked), bool)]


METRICS = {
    "auc": Metric("AUC", 1, auc, lambda rows: [rows.clicked, ~rows.clicked]),
    "logloss": Metric("LogLoss", -1, logloss, _all),
    "gauc": Metric("gAUC", 1, gauc, lambda rows: [with_both_classes(rows)]),
    "ne": Metric("NE", -1, ne, _all),
    "ece": Metric("ECE", -1, ece, _all),
}
