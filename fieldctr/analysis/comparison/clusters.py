"""The variance of metrics whose rows come in clusters: the rows of one user, or of one day, are not independent.

For AUC this is Obuchowski's estimator, which is DeLong's where each row is a cluster of its own; for metrics that are
means or ratios of means it is the cluster-robust (sandwich) variance with the factor I / (I - 1) of I clusters.

Source: Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics 1997, equations for S10, S01, S11.
Differs: of any number of scores at once, and with sample weights, which take the place of counts of rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fieldctr.analysis.comparison.effects import METRICS, Rows
from fieldctr.errors import UserError


class Sampling(NamedTuple):
    """What another sample of rows would change of k numbers."""

    covariance: np.ndarray  # (k, k)
    num_rows: int  # that count
    num_clusters: int  # that have rows which count
    freedom: int  # clusters of the rarer class, less one


def sampling(metric: str, rows: Rows, effects: np.ndarray) -> Sampling:
    """The covariance of k values from their rows' effects (k, n). UserError where a class has less than two clusters.

    Clicks and non-clicks of AUC are drawn apart: each has its own number of clusters, and a cluster that has both
    adds the product of its two sums.
    """
    strata = strata_of(metric, rows)
    sums = [_by_cluster(effects, mask, rows.cluster) for mask in strata]
    counts = [_num_clusters(mask, rows.cluster) for mask in strata]
    used = np.logical_or.reduce(strata)
    together = _num_clusters(used, rows.cluster)
    covariance = sum(
        (count / (count - 1) * own @ own.T for count, own in zip(counts, sums, strict=True)),
        np.zeros((len(effects), len(effects))),
    )
    if len(sums) == 2 and rows.cluster is not None:
        product = sums[0] @ sums[1].T
        covariance += together / (together - 1) * (product + product.T)
    return Sampling(covariance, int(used.sum()), together, min(counts) - 1)


def strata_of(metric: str, rows: Rows) -> list[np.ndarray]:
    """Masks of the rows that are drawn apart; UserError where one has no two clusters."""
    if rows.clicked.all() or not rows.clicked.any():
        clicks = int(rows.clicked.sum())
        raise UserError(f"a comparison needs clicks and non-clicks, got {clicks:,} of {len(rows.clicked):,}")
    strata = METRICS[metric].strata(rows)
    if (least := min(_num_clusters(mask, rows.cluster) for mask in strata)) < 2:
        raise UserError(
            f"{METRICS[metric].name} has no error: its clicks or its non-clicks are of {least} user, day or row, "
            "and nothing can be said of others"
        )
    return strata


def _by_cluster(effects: np.ndarray, mask: np.ndarray, cluster: np.ndarray | None) -> np.ndarray:
    if cluster is None:
        return effects if mask.all() else effects[:, mask]
    codes, size = cluster[mask], int(cluster.max()) + 1
    return np.stack([np.bincount(codes, own[mask], size) for own in effects])


def _num_clusters(mask: np.ndarray, cluster: np.ndarray | None) -> int:
    return int(mask.sum()) if cluster is None else int(np.count_nonzero(np.bincount(cluster[mask])))


def clusters_of(codes: np.ndarray) -> np.ndarray:
    """Clusters (n,) from codes (n,) of users or days; each row of code 0, which has none, is a cluster of its own."""
    blank = codes == 0
    return np.where(blank, int(codes.max()) + np.cumsum(blank), codes).astype(np.int64)


def error_of(covariance: np.ndarray, contrast: Sequence[float] | np.ndarray) -> float:
    """The standard error of a weighted sum of the numbers."""
    c = np.asarray(contrast, np.float64)
    return float(np.sqrt(max(0.0, c @ covariance @ c)))
