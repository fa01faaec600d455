"""The area under the ROC curve: the table's best possible one and a model's are computed by the same lines.

Source: Hanley and McNeil, Radiology 1982: AUC as the Mann-Whitney statistic.
"""

import numpy as np

from fieldctr.errors import UserError


def auc(label: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Share of (click, non-click) pairs in the right order, ties half. Any increasing function of pCTR will do.

    With weights (R,) a pair counts as often as the product of its two: a whole weight is so many equal rows.
    """
    clicked = label > 0.5
    if weight is not None:
        return _weighted_auc(clicked, score, weight)
    positive, negative = np.sort(score[clicked]), np.sort(score[~clicked])
    if not len(positive) or not len(negative):
        raise UserError(f"AUC needs clicks and non-clicks, got {len(positive)} and {len(negative)}: use another split")
    few, many = sorted((positive, negative), key=len)  # searching the few in the many takes half the time
    below = int(np.searchsorted(many, few, "left").sum()) + int(np.searchsorted(many, few, "right").sum())
    share = below / (2 * len(few) * len(many))
    return share if few is positive else 1 - share


def counted_auc(score: np.ndarray, clicks: np.ndarray, others: np.ndarray) -> float:
    """`auc` of samples counted by value: value v has score[v], clicks[v] clicks and others[v] non-clicks.

    Counts may be sums of weights.
    """
    _, run = np.unique(score, return_inverse=True)
    positive, negative = np.bincount(run, clicks), np.bincount(run, others)
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))


def _weighted_auc(clicked: np.ndarray, score: np.ndarray, weight: np.ndarray) -> float:
    clicks, others = np.where(clicked, weight, 0.0), np.where(clicked, 0.0, weight)
    if not clicks.any() or not others.any():
        raise UserError(
            f"AUC needs clicks and non-clicks with a weight above 0, got {np.count_nonzero(clicks)} and "
            f"{np.count_nonzero(others)}: use another split"
        )
    return counted_auc(score, clicks, others)
